"""Methods: things done to a model through the hooks of `base.py`, one file each."""
