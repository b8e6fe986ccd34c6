"""A thread that says now and then that work goes on, while a block runs and not a moment longer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

SILENCE = 60.0
"""Seconds without a line where no terminal is, at most: what takes long then says that it goes on."""


class SilenceBreaker(ABC):
    """What writes lines as work goes on, and one each minute in which there was nothing to write.

    Args:
        write: Takes a line.
        clock: Seconds from any moment on.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write, self._clock = write, clock
        self._began = self._said = clock()
        self._lock = Lock()
        """Held by whoever writes: the work, or the thread that breaks the silence."""

    def beat(self) -> float:
        """Say that work goes on, where a minute was silent.

        Returns:
            Seconds until the next minute of silence is over.
        """
        with self._lock:
            now = self._clock()
            silent = now - self._said
            if silent < SILENCE:
                return SILENCE - silent
            text = self._still(now)
            if text is not None:
                self._said = now
                self._write(text)
            return SILENCE

    @abstractmethod
    def _still(self, now: float) -> str | None:
        """What goes on; None: nothing was reported yet."""


@contextmanager
def heartbeat(beat: Callable[[], float]) -> Iterator[None]:
    """Call ``beat`` from a thread of its own until the block ends; by then the thread has ended too.

    Args:
        beat: Returns the seconds until it wants to be called again. A file that no longer takes what it
            writes ends the thread; the block's own next line meets the same fault, and tells it.
    """
    over = Event()

    def go() -> None:
        pause = beat()
        while not over.wait(pause):
            pause = beat()

    def quietly() -> None:
        try:
            go()
        except (OSError, ValueError):  # ValueError: a file that was closed
            over.set()

    thread = Thread(target=quietly, name="privhier-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
