"""Answers of policies with their rewards -> figures that tell whether one is better."""
