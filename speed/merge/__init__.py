"""Merges of checkpoints beside mergekit."""
