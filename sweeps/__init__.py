"""sweeps searches over many recipes: it proposes, schedules, records and compares. Start at `sweeps/run.py`."""
