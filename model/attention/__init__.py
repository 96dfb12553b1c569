"""Attention over trees of responses that share a prompt."""
