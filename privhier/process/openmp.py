"""How long OpenMP's threads spin for their next piece of work, set before torch loads OpenMP.

At the end of every parallel loop libgomp's threads wait for each other, and for the next loop, by spinning:
by default for about 300,000 rounds, several milliseconds. On a quiet machine that is the fastest way to
wait. Beside other work it holds the very cores that the awaited thread needs, and a network of small layers
takes ten times as long. Fewer rounds, then sleep, cost a quiet machine almost nothing
(``benchmarks/busy_machine.py`` measures both).

``import privhier`` does this, so that every process which begins in this package has it: the command line,
workers of sweeps (local and Ray's), shadow models, edge, cloud, timers. Children inherit it. libgomp reads
its variables once, when it is loaded: a process that imports torch (or scikit-learn, which brings a libgomp
of its own) before privhier keeps the default for itself, and only its children wait as is said here. LLVM's
and Intel's OpenMP read other variables and are left alone.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Final

VARIABLE: Final = "GOMP_SPINCOUNT"
SPINS: Final = 1000
"""Rounds of spinning; where libgomp itself goes with more threads than processors."""
CHOICES: Final = (VARIABLE, "OMP_WAIT_POLICY", "OMP_WAIT_POLICY_ALL", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which a user says how threads wait; with any of them set, even empty, nothing is changed."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set ``GOMP_SPINCOUNT`` unless the user has chosen how threads wait (``CHOICES``).

    Args:
        environment: Changed in place. The default is the process's own, where only what loads OpenMP
            afterwards, and children, see it.
    """
    if not any(name in environment for name in CHOICES):
        environment[VARIABLE] = str(SPINS)
