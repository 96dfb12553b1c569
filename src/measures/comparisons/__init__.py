"""Many cells side by side: which method is better, and what gain goes with."""
