"""Rewards on a published benchmark -> the numbers that its own script prints."""
