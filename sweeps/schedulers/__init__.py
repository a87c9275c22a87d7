"""Which trials continue at a rung: one scheduler per file, named in `sweeps/registry.py`."""
