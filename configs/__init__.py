"""Every choice, as YAML by kind, and the schema that reads it."""
