"""An attack that says nothing of where it applies is kept from where its kind cannot be trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from privhier.attacks.base import Attack, AttackResult, Kind
from privhier.attacks.view import AuxiliarySet, View


def attack(of: Kind, *, weights: bool = False) -> Attack:
    @dataclass(frozen=True)
    class Silent(Attack):
        kind: ClassVar[Kind] = of
        white_box: ClassVar[bool] = weights

        def run(self, view: View) -> AttackResult:
            raise AssertionError("asked first, run later")

    return Silent(target="gender")


@pytest.fixture
def view() -> View:
    releases = np.zeros((40, 1, 3), np.float32)
    people = np.repeat(np.arange(10), 4)
    aux = AuxiliarySet(
        images=np.zeros((40, 3, 8, 8), np.uint8),
        labels={"gender": people % 2, "identity": people},
        n_classes={"gender": 2, "identity": 10},
        groups=people,
        draws=1,
        releases=lambda k: releases,
    )
    return View("toy", releases, (3, 8, 8), aux, seed=0, populations=(np.arange(5),))


@pytest.mark.parametrize(
    ("kind", "without", "reason"),
    [
        ("attribute", {"labels": {}}, "no labels for 'gender'"),
        ("attribute", {"labels": {"gender": np.zeros(40, np.int64)}}, "fewer than two classes"),
        ("verification", {"labels": {}}, "names no people"),
        ("reconstruction", {"groups": np.zeros(40, np.int64)}, "one group"),
        ("property", {"labels": {}}, "no labels for 'gender'"),
    ],
)
def test_what_its_kind_is_trained_on_must_be_there(view, kind, without, reason):
    assert attack(kind).refuses(view) is None
    assert reason in attack(kind).refuses(replace(view, aux=replace(view.aux, **without)))


def test_a_population_is_asked_for(view):
    assert "no population" in attack("property").refuses(replace(view, populations=()))
    assert "empty" in attack("property").refuses(replace(view, populations=(np.arange(0),)))


def test_weights_are_asked_for_first(view):
    for kind in ("attribute", "verification", "reconstruction", "property"):
        assert "edge's weights" in attack(kind, weights=True).refuses(view)
