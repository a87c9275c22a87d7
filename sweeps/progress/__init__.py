"""Who is told what happens: the terminal and MLflow."""
