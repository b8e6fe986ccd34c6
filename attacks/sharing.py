"""What attacks on one view compute once; the time it took is charged to each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from privhier.attacks.base import Attack, AttackResult
from privhier.attacks.view import View

V = TypeVar("V")
_USED = "sharing/used"


def shared(view: View, key: str, make: Callable[[], V]) -> V:
    """``make()`` for the first attack on this very view that asks for ``key``, the same value for the rest.

    It must depend on nothing but the view, so that no result depends on which attack came first.
    """
    used: dict[str, float] = view.scratch.setdefault(_USED, {})
    if key not in view.scratch:
        started = time.perf_counter()
        view.scratch[key] = (make(), time.perf_counter() - started)
        used[key] = 0.0  # on its own clock already
    value, seconds = view.scratch[key]
    used.setdefault(key, seconds)
    made: V = value
    return made


def run_and_time(attack: Attack, view: View) -> tuple[AttackResult, float]:
    """The attack's result, and the seconds it would have taken with nobody before it."""
    view.scratch[_USED] = {}
    started = time.perf_counter()
    result = attack.run(view)
    own = time.perf_counter() - started
    borrowed: dict[str, float] = view.scratch.pop(_USED)
    return result, own + sum(borrowed.values())
