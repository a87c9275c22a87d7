"""Progress of a sweep, shown on the terminal and mirrored to MLflow."""
