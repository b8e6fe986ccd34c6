"""How many processor cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores in this process's CPU set (``taskset``, a container's ``cpuset``, a job scheduler), at least 1.

    Where the system knows no CPU sets, all there are.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
