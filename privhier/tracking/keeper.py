"""Runs a command for as long as whoever asked for it lives, and ends it with all that it started.

``python -m privhier.tracking.keeper COMMAND...``: standard input is the line to the one who asked. When it
closes, however that one ended (a kill cannot be answered, a closed line is), the command ends too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

PARTING = 10
"""Seconds for a server to end in."""
_LOOK = 0.1


def keep(command: Sequence[str]) -> int:
    """Run the command; its exit status, 128 and more for a signal."""
    alone = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: alone.set())
    threading.Thread(target=_listen, args=(alone,), daemon=True).start()
    # a session of its own: what the command starts ends with it, and nothing else does
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as server:
        while server.poll() is None and not alone.wait(_LOOK):
            pass
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                server.wait(PARTING)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _listen(alone: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    alone.set()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
