"""Pages and figures of runs and sweeps."""
