"""What a recipe will need: memory, hours, a share of a GPU."""
