"""The two halves of a run as two processes, and both put together."""
