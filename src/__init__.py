"""The experiment: pairs -> rewards -> weak labels -> PGR."""
