"""Experiments of which everything is known, and how often intervals hold the truth there."""
