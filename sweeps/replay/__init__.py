"""Recorded sweeps, run again with other schedulers and searchers without training."""
