"""Which recipe to try next: one searcher per file, named in `sweeps/registry.py`."""
