"""Preparing data, watched from outside: what `speed.preprocess_rate` measures with."""
