"""What each command of `qa-sweep` does. The names and the exit codes are in `sweeps/cli.py`."""
