"""Which runs an experiment has, and the folders that they live in."""
