"""Data: question tables, tokenizers, windows and batches.

`squad.py` reads sources into one table, `prepare.py` is the whole way from a recipe to windows and the place
to start.
"""
