"""The folder that a trained network ships in: written, verified, loaded back."""
