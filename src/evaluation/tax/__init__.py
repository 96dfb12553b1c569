"""What reward fine-tuning costs a language model, and what averaging with its base buys back."""
