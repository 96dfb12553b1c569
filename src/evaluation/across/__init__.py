"""Questions over experiments that were evaluated before, from their scores: no model, no data."""
