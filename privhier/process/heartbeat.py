"""A thread that says now and then that work goes on, while a block runs and not a moment longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


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
