"""Who may be on the line: bounded numbers of lines that have not greeted, and one line a place.

A line that says nothing costs its sender its turn, and nobody else: where all turns are taken, the oldest
silent line goes, first of the one who holds most of them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from queue import Empty, SimpleQueue

from privhier.errors import UplinkError

READERS = 4
"""Threads that wait for a greeting, per turn: that of a line that was turned away takes a moment to end."""


class Line:
    """One stream of a client.

    Args:
        peer: Who: its certificate, or in plain text its host.
        drop: Ends the stream without a word.
    """

    def __init__(self, peer: str, drop: Callable[[], object]) -> None:
        self.peer, self.drop = peer, drop
        self.place: Hashable | None = None
        self.heard: SimpleQueue[bytes | BaseException | None] = SimpleQueue()


class Door:
    """Lets lines in; thread-safe.

    Args:
        waiting: Lines that have not greeted, of all peers.
        each: Such lines of one peer.
        patience: Seconds within which a line has to greet.
        report: Called with a line of text when a line is turned away.
    """

    def __init__(
        self, *, waiting: int, each: int, patience: float, report: Callable[[str], None] | None = None
    ) -> None:
        self._most, self._each, self._patience = waiting, each, patience
        self._report = report or (lambda text: None)
        self._lock = threading.Lock()
        self._readers = threading.Semaphore(READERS * waiting)
        self._waiting: dict[Line, None] = {}  # in order of arrival
        self._seated: dict[Hashable, Line] = {}
        self._dropped = 0

    def enter(self, line: Line) -> None:
        """Give a line its turn to greet; where none is free, an older silent line loses its own."""
        with self._lock:
            victim = self._victim(line.peer)
            if victim is not None:
                del self._waiting[victim]
                self._dropped += 1
            self._waiting[line] = None
        if victim is not None:
            victim.heard.put(_silent("others wait, and this line has not greeted"))
            if self._dropped & (self._dropped - 1) == 0:  # the first, the second, the fourth, ...
                self._report(
                    f"{self._dropped} silent lines dropped, the last of {victim.peer}: others were waiting"
                )

    def greeting(self, line: Line, requests: Iterator[bytes]) -> bytes | None:
        """The first message of a line, None where it ends without one.

        Raises:
            UplinkError: It said nothing in time, or had to make room.
            grpc.RpcError: It broke.
        """

        def read() -> None:
            try:
                line.heard.put(next(requests, None))
            except BaseException as error:
                line.heard.put(error)
            finally:
                self._readers.release()

        if not self._readers.acquire(timeout=1.0):
            raise _silent("too many lines have come and gone at once")
        threading.Thread(target=read, name="greeting", daemon=True).start()
        try:
            heard = line.heard.get(timeout=self._patience)
        except Empty:
            self._report(f"a line of {line.peer} did not greet within {self._patience:g} s")
            raise _silent(f"a line has to greet within {self._patience:g} s") from None
        if isinstance(heard, BaseException):
            raise heard
        return heard

    def seat(self, line: Line, place: Hashable) -> None:
        """The line has greeted as ``place``; an earlier line of that place is dropped."""
        with self._lock:
            self._waiting.pop(line, None)
            before = self._seated.get(place)
            self._seated[place], line.place = line, place
        if before is not None:
            before.drop()

    def leave(self, line: Line) -> None:
        """The line is over."""
        with self._lock:
            self._waiting.pop(line, None)
            if self._seated.get(line.place) is line:
                del self._seated[line.place]

    def _victim(self, peer: str) -> Line | None:
        counts = Counter(line.peer for line in self._waiting)
        if counts[peer] >= self._each:
            worst = peer
        elif len(self._waiting) >= self._most:
            worst = counts.most_common(1)[0][0]
        else:
            return None
        return next(line for line in self._waiting if line.peer == worst)


def _silent(rule: str) -> UplinkError:
    return UplinkError(key="uplink.greeting", value=None, rule=rule, remedy="Greet at once, or come again")
