"""One file for each kind of model; `base.py` says what a family is. Importing one imports no torch."""
