"""One question a file: what `eval.py` answers."""
