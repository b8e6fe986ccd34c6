"""What shapes the edge's objective."""
