"""What ``import privhier`` offers: runs, sweeps and edges from Python, as on the command line.

Everything here checks, writes and prints what the command line does, and raises the same typed errors.
"""

from privhier.api.finished import FinishedRun, FinishedSweep, compare, load_edge, load_tail, open_run
from privhier.api.given import load_config
from privhier.api.running import run, sweep

__all__ = [
    "FinishedRun",
    "FinishedSweep",
    "compare",
    "load_config",
    "load_edge",
    "load_tail",
    "open_run",
    "run",
    "sweep",
]
