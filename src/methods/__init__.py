"""What a paper changes, as pure functions: losses and label treatments."""

from src.methods import experts  # noqa: F401 - has treatments, whose names are known with it
