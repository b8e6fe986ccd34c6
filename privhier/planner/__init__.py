"""Times, bytes and memory of every cut and schedule, predicted before a run."""
