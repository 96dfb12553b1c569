"""Answers -> pairs, each in one split."""
