"""Two models of one shape into one: a share of the base and the rest of what was tuned from it."""
