"""What carries releases from edge to cloud: one way, as bytes."""
