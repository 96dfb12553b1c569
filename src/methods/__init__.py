"""What a paper changes, as pure functions: losses and label treatments."""

# Have treatments, whose names are known with them.
from src.methods import em_posterior, experts, mixtures, overlap  # noqa: F401
