"""Names for stretches of a training step, as a profile shows them; next to free where nobody profiles."""

from __future__ import annotations

from torch.profiler import record_function

PREFIX = "privhier: "
"""Begins the name of every span in a trace."""


def span(name: str) -> record_function:
    """A context manager of this name around what it is about; where several hold, the innermost counts."""
    return record_function(PREFIX + name)
