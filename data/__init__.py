"""Raw rows -> split, tokenised pairs."""
