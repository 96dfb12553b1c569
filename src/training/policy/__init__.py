"""Policies: language models that TRL's trainers fine-tune on answers and align to preferences."""
