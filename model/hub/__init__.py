"""What a download needs beyond huggingface_hub: errors, sizes, copies in pip packages."""
