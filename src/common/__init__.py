"""The ground that every room stands on: errors, files, locks, processes."""
