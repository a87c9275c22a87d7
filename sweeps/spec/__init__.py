"""What a YAML file says: one complete sweep, read strictly."""
