"""What a reward model lost of the language model that it was made from: arrays and numbers."""
