"""SIGTERM ends a process as Ctrl-C does: what is open is closed, and the way to go on is printed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from privhier.errors import InterruptedRunError

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


@contextmanager
def whole() -> Iterator[None]:
    """Hold a Ctrl-C back until the block is through: a library loaded in half can be loaded no more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
    if heard:
        raise KeyboardInterrupt


def interrupted(rule: str, remedy: str) -> InterruptedRunError:
    """The typed ending of a Ctrl-C or SIGTERM: what is kept, and how to go on."""
    return InterruptedRunError(key="Ctrl-C", value="interrupted", rule=rule, remedy=remedy)


@contextmanager
def interruptible(
    command: str,
    *,
    kept: str = "the run stopped before its end; everything up to its last finished step is kept",
) -> Iterator[None]:
    """Turn a Ctrl-C (and SIGTERM) in the block into a typed ending that says how to go on.

    Args:
        command: What to type to go on.
        kept: What stopped, and what of it is kept.

    Raises:
        InterruptedRunError: It was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise interrupted(kept, f"Go on with: {command}") from error
