"""Machines: what each one offers, and whether it may run trials of a sweep."""
