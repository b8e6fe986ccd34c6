"""What shapes the edge's objective so that less of the secret goes up."""
