"""The attacks module: fresh, strong attackers that see a view and nothing else."""
