"""The three-number schedule: edge, cloud, checkpoints."""
