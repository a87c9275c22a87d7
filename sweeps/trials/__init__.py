"""The life of trials: proposed, run on workers, ended and recorded."""
