"""Which trials go on at a rung: one scheduler per file, named in `sweeps/registry.py`."""
