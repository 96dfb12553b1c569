"""What training changed of a model, and what that explains: arrays and numbers alone."""
