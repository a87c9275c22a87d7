"""A sweep's folder on disk: settings, records, journal, trials, and what may be written there."""
