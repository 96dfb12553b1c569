"""Numbers -> pages for people. No torch."""
