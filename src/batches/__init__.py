"""Tokenised pairs -> packed tensors: what a forward reads."""
