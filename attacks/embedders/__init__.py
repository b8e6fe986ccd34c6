"""Face embedders that tell whose face a picture shows."""
