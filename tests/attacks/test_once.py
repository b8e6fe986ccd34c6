"""Shared work is done once and charged to everyone who uses it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from privhier.attacks import once as once_module
from privhier.attacks.base import Attack, AttackResult, Kind
from privhier.attacks.once import clocked, once
from privhier.attacks.view import AuxiliarySet, View


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when something says that it takes time."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(once_module, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.fixture
def view() -> View:
    images = np.zeros((4, 3, 8, 8), np.uint8)
    releases = np.zeros((4, 1, 3), np.float32)
    return View(
        "toy", releases, (3, 8, 8), AuxiliarySet(images, {}, {}, np.arange(4), 1, lambda k: releases), seed=0
    )


def asking(clock, calls):
    """Asks twice for a shared thing that takes five seconds to make, and takes one second itself."""

    def make():
        calls.append(1)
        clock.seconds += 5
        return "axes"

    def run(view):
        assert once(view, "axes", make) == once(view, "axes", make) == "axes"
        clock.seconds += 1
        return AttackResult()

    return run


def test_everyone_is_charged_what_the_first_one_made(clock, view):
    calls = []
    run = asking(clock, calls)
    assert [clocked(view, lambda: run(view))[1] for _ in range(3)] == [6, 6, 6]
    assert len(calls) == 1


def test_a_changed_view_shares_nothing(clock, view):
    calls = []
    run = asking(clock, calls)
    for other in (view, replace(view, seed=9)):
        clocked(other, lambda other=other: run(other))
    assert len(calls) == 2


@pytest.mark.parametrize("first", ["axes", "features", "both"])
def test_what_is_made_of_shared_things_costs_their_time_too(clock, view, first):
    """Features (two seconds) are made of axes (five): whoever asks for them alone would take seven."""

    def axes():
        clock.seconds += 5

    def features():
        once(view, "axes", axes)
        clock.seconds += 2

    work = {
        "axes": lambda: once(view, "axes", axes),
        "features": lambda: once(view, "features", features),
        "both": lambda: (once(view, "features", features), once(view, "axes", axes)),
    }
    clocked(view, work[first])
    assert [clocked(view, work[name])[1] for name in ("axes", "features", "both")] == [5, 7, 7]


def test_a_thing_that_cannot_be_made_leaves_the_clock_in_order(clock, view):
    def fails():
        clock.seconds += 3
        raise ValueError("no axes")

    with pytest.raises(ValueError, match="no axes"):
        clocked(view, lambda: once(view, "axes", fails))
    calls = []
    run = asking(clock, calls)
    assert [clocked(view, lambda: run(view))[1] for _ in range(2)] == [6, 6]


@dataclass(frozen=True)
class Asking(Attack):
    """An attack that says nothing of its seconds."""

    kind: ClassVar[Kind] = "attribute"
    clock: SimpleNamespace = None
    inner: Attack | None = None

    def run(self, view):
        if self.inner is not None:
            self.inner.run(view)
        return asking(self.clock, [])(view)


def test_a_second_run_on_the_view_takes_as_long_as_the_first(clock, view):
    attack = Asking(clock=clock)
    assert [attack.run(view).seconds for _ in range(3)] == [6, 6, 6]


def test_an_attack_that_runs_another_one_is_charged_for_both_once(clock, view):
    nested = Asking(clock=clock, inner=Asking(clock=clock))
    assert [nested.run(view).seconds for _ in range(2)] == [7, 7]
    assert Asking(clock=clock).run(view).seconds == 6
