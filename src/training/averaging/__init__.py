"""Averages of a student and its base as runs: ratios are learned, a folder is made and proved."""
