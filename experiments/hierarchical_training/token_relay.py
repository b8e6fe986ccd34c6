"""A TCP relay over loopback that lets bytes through at a bit rate: the stand-in for ``tc tbf`` without root.

    python token_relay.py RATE_MBIT PORT

prints the port it listens on, forwards every connection to ``127.0.0.1:PORT``, and answers each line on its
standard input with the bytes so far: ``{"up": ..., "down": ...}``. It ends with its standard input.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

CHUNK = 1448
"""Bytes let through at once: the payload of one segment."""
BUFFER = 2**16
"""Socket buffers: a sender must not see the relay as a line that swallows everything."""


class TokenBucket:
    """Tokens arrive at a rate and are kept up to a burst; who takes more than there are must wait.

    Args:
        rate: Bytes a second.
        burst: Most bytes kept.
        clock: Seconds, monotonic.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst = rate, burst
        self._clock = clock
        self._tokens = burst
        self._last = clock()

    def take(self, count: int) -> float:
        """Take ``count`` tokens, into debt if need be; returns the seconds to wait before using them."""
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + (now - self._last) * self.rate) - count
        self._last = now
        return max(0.0, -self._tokens / self.rate)


def forward(
    source: socket.socket, sink: socket.socket, bucket: TokenBucket, way: str, counts: dict[str, int]
) -> None:
    """Copy until the source ends, at the bucket's rate."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            time.sleep(bucket.take(len(data)))
            counts[way] += len(data)
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def accept(server: socket.socket, port: int, rate_mbit: float, counts: dict[str, int]) -> None:
    """One bucket each way for all connections together, as on one line."""
    rate = rate_mbit * 1e6 / 8
    buckets = {way: TokenBucket(rate, max(2 * CHUNK, rate * 0.005)) for way in counts}
    while True:
        client = server.accept()[0]
        cloud = socket.create_connection(("127.0.0.1", port))
        for source, sink, way in ((client, cloud, "up"), (cloud, client, "down")):
            arguments = (source, sink, buckets[way], way, counts)
            threading.Thread(target=forward, args=arguments, daemon=True).start()


def main() -> None:
    """Serve until standard input ends."""
    rate_mbit, port = float(sys.argv[1]), int(sys.argv[2])
    counts = {"up": 0, "down": 0}
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=accept, args=(server, port, rate_mbit, counts), daemon=True).start()
        print(server.getsockname()[1], flush=True)
        for _ in sys.stdin:
            print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
