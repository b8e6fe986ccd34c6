"""A worker of the local engine: ``python -m privhier.sweeps.worker FD [SHARE]``, assignments in, endings out.

A process of its own and not a fork: torch's thread pools do not survive one, and the parent's main
module need not be importable. SHARE is the part of its CUDA device's memory that it may fill.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

from privhier.process.stopping import hear_sigterm
from privhier.sweeps.assignment import Assignment, Memory, work_on
from privhier.sweeps.device_share import limit_memory


def main() -> None:
    """Work until the parent closes the connection; die with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    hear_sigterm()
    connection: Connection[object, object] = Connection(int(sys.argv[1]))
    if len(sys.argv) > 2:
        import torch

        limit_memory(float(sys.argv[2]), torch.cuda)
    assignments: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, assignments), daemon=True).start()
    memory = Memory()
    try:
        while True:
            connection.send(work_on(assignments.get(), memory))
    except KeyboardInterrupt:
        pass


def _receive(connection: Connection[object, object], assignments: queue.SimpleQueue[Assignment]) -> None:
    while True:
        try:
            assignment = connection.recv()
        except (EOFError, OSError):
            # The parent closed, or was killed. A new parent may start at once: leave its points alone.
            os._exit(0)
        assert isinstance(assignment, Assignment)
        assignments.put(assignment)


if __name__ == "__main__":
    main()
