"""What a paper changes, as pure functions: losses and label treatments."""
