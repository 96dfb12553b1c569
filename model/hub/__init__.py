"""What a download needs beyond huggingface_hub."""
