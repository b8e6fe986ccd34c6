"""Shared work is done once and charged to everyone who uses it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from privhier.attacks import sharing
from privhier.attacks.base import AttackResult
from privhier.attacks.sharing import run_and_time, shared
from privhier.attacks.view import AuxiliarySet, View


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when something says that it takes time."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(sharing, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


@pytest.fixture
def view() -> View:
    images = np.zeros((4, 3, 8, 8), np.uint8)
    releases = np.zeros((4, 1, 3), np.float32)
    return View(
        "toy", releases, (3, 8, 8), AuxiliarySet(images, {}, {}, np.arange(4), 1, lambda k: releases), seed=0
    )


def attack(clock, calls):
    """Asks twice for a shared thing that takes five seconds to make, and takes one second itself."""

    def make():
        calls.append(1)
        clock.seconds += 5
        return "axes"

    def run(view):
        assert shared(view, "axes", make) == shared(view, "axes", make) == "axes"
        clock.seconds += 1
        return AttackResult()

    return SimpleNamespace(run=run)


def test_everyone_is_charged_what_the_first_one_made(clock, view):
    calls = []
    assert [run_and_time(attack(clock, calls), view)[1] for _ in range(3)] == [6, 6, 6]
    assert len(calls) == 1


def test_a_changed_view_shares_nothing(clock, view):
    calls = []
    for other in (view, replace(view, seed=9)):
        run_and_time(attack(clock, calls), other)
    assert len(calls) == 2
