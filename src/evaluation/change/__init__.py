"""Questions about finished runs beside the base model that each began with."""
