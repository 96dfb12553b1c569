"""What alignment costs, in tables, sentences and figures."""
