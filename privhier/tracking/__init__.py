"""Every run in MLflow: the one place that knows it."""
