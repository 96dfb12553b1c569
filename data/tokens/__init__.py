"""Pairs -> token ids, under each tokenizer of an experiment."""
