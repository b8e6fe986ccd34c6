"""How many processes the tests are run in; see ``pytest_xdist_auto_num_workers`` in ``conftest.py``.

Read by path (``runpy.run_path``), as tests import no tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from privhier.process.cores import usable_cores

GIB = 2**30
EACH = 3 * GIB
"""Bytes that a process of the suite may take, with what it starts: sweeps' workers, other halves of a run."""
MOST = 2
"""More have not been tried. Each imports and collects everything, some seven seconds."""
CGROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of a container's limit, in both versions: its file, that of what is used, and the row of ``memory.stat``
that says how much of it is files read long ago, which give way."""


def processes(cores: int, free: int) -> int:
    """One a core, as far as memory reaches; 0 says: not even a second, so in the process that was asked.

    Args:
        cores: That may be used.
        free: Bytes of memory.
    """
    count = min(cores, free // EACH, MOST)
    return count if count >= 2 else 0


def free_memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that the machine, and the container where there is one, have left."""
    left = [psutil.virtual_memory().available, *_left_in(root), *_left_in(root / "memory")]
    return min(left)


def _left_in(folder: Path) -> Iterator[int]:
    for limit, used, gives_way in CGROUPS:
        if (folder / limit).is_file():
            most = (folder / limit).read_text().strip()
            rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            if most.isdecimal():  # or "max"
                yield int(most) - int((folder / used).read_text()) + int(rows[gives_way])


def here() -> int:
    """Of this machine."""
    return processes(usable_cores(), free_memory())
