"""A port for a server that begins elsewhere, later; read by path, as tests import no tests.

A server of one's own takes port 0 and says which it got. Between asking for a free port and another process
taking it, the system may give a port of its own choice to anybody: to the other tests' clients, say.
"""

from __future__ import annotations

import os
import random
import socket

CHOSEN_BY_NOBODY = range(12_000, 32_000)
"""Below those that systems choose from."""
EACH = 2_000


def free_port() -> int:
    """A free port of loopback: none that the system gives away, none that another worker looks among."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = worker * EACH % len(CHOSEN_BY_NOBODY)
    mine = CHOSEN_BY_NOBODY[first : first + EACH]
    for port in random.Random(os.urandom(8)).sample(mine, len(mine)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")
