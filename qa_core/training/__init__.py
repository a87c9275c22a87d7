"""Training of one recipe: the loop, optimisers, schedules and checkpoints."""
