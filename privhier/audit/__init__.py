"""A run's claims held against draws through its own code."""
