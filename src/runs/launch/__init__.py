"""Runs as jobs of a Slurm cluster: which are submitted, what each waits for, what became of it."""
