"""Rewards -> numbers with intervals. No torch."""
