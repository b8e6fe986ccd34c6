"""Image and classification metrics, and their intervals; imports nothing of ours."""
