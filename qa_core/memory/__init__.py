"""Memory of a recipe: predicted from shapes, measured by one protocol."""
