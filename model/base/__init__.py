"""A base model's layers and tensors, on disk and in memory."""
