"""Base checkpoint -> reward model."""
