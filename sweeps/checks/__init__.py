"""What is checked before a sweep starts: devices, checkpoints, memory and data."""
