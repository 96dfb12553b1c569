"""Checkpoint + texts -> rewards, and from a teacher's rewards the weak labels."""
