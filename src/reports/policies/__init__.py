"""The page and the figures of an experiment's policies: tables in, pictures and sentences out."""
