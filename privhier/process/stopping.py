"""SIGTERM ends a process as Ctrl-C does: what is open is closed, and the way to go on is printed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PAUSE = 3.0
"""Seconds in which further signals are one with the first: a group and its parent are often both told."""


class _Interrupt:
    """Raises ``KeyboardInterrupt`` where the main thread is."""

    def __init__(self) -> None:
        self._last = -_PAUSE

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE:
            self._last = now
            raise KeyboardInterrupt


def hear_sigterm() -> None:
    """From now on SIGTERM raises ``KeyboardInterrupt`` here; for a process of our own, in its main thread."""
    signal.signal(signal.SIGTERM, _Interrupt())


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While the block runs, SIGTERM raises ``KeyboardInterrupt``; nothing changes off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    hear_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
