"""What attacks on one view compute once; the time it took is charged to each of them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

V = TypeVar("V")
_CLOCKS = "once/clocks"


class Scratched(Protocol):
    """A view: it keeps what is computed once."""

    @property
    def scratch(self) -> dict[str, Any]:
        """Key to what was computed; lives as long as the view."""
        ...


@dataclass(frozen=True)
class _Made:
    """A value, the seconds it took by itself, and those of everything it was made of, by key."""

    value: Any
    costs: dict[str, float]


def once(view: Scratched, key: str, make: Callable[[], V]) -> V:
    """``make()`` for the first attack on this very view that asks for ``key``, the same value for the rest.

    It must depend on nothing but the view, so that no result depends on which attack came first. It may
    itself ask for what is computed once.
    """
    clocks: list[dict[str, float]] = view.scratch.setdefault(_CLOCKS, [])
    if key in view.scratch:
        made: _Made = view.scratch[key]
        for used, seconds in made.costs.items():
            charge(view, used, seconds)
    else:
        inner: dict[str, float] = {}
        clocks.append(inner)
        started = time.perf_counter()
        try:
            value = make()
        finally:
            clocks.pop()
        elapsed = time.perf_counter() - started
        costs = {
            used: view.scratch[used].costs[used] if used in view.scratch else inner[used] for used in inner
        }
        own = elapsed - sum(costs[used] for used, borrowed in inner.items() if not borrowed)
        made = _Made(value, {key: own, **costs})
        view.scratch[key] = made
        for used, borrowed in {**inner, key: 0.0}.items():  # what was made just now ran on the own clock
            charge(view, used, borrowed)
    result: V = made.value
    return result


def charge(view: Scratched, key: str, seconds: float) -> None:
    """Add to the attack that is running what somebody spent on ``key`` before it; each key counts once."""
    clocks: list[dict[str, float]] = view.scratch.setdefault(_CLOCKS, [])
    if clocks:
        clocks[-1].setdefault(key, seconds)


def clocked(view: Scratched, work: Callable[[], V]) -> tuple[V, float]:
    """What ``work`` gives, and the seconds it would have taken with nobody before it on this view."""
    clocks: list[dict[str, float]] = view.scratch.setdefault(_CLOCKS, [])
    borrowed: dict[str, float] = {}
    clocks.append(borrowed)
    started = time.perf_counter()
    try:
        value = work()
    finally:
        clocks.pop()
    seconds = time.perf_counter() - started + sum(borrowed.values())
    for key, cost in borrowed.items():  # an attack that runs another one borrows what that one borrows
        charge(view, key, cost)
    return value, seconds


class Timed:
    """An attack whose ``run(view)`` answers with the seconds it would have taken with nobody before it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        run = vars(cls).get("run")
        if run is not None and not getattr(run, "__isabstractmethod__", False):
            type.__setattr__(cls, "run", _timed(run))


def _timed(run: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(run)
    def timed(attack: Any, view: Scratched) -> Any:
        result, seconds = clocked(view, lambda: run(attack, view))
        return replace(result, seconds=seconds)

    return timed
