"""A run's config -> its finished folder."""
