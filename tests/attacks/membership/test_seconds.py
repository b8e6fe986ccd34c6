"""An attack costs what it would cost alone: the shadow models it uses count, whoever trained them."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from privhier.attacks import once
from privhier.attacks.membership import shadows
from privhier.attacks.membership.lira import LiraAttack
from privhier.attacks.membership.rmia import RmiaAttack
from privhier.storage.sealed import Sealed

toys = runpy.run_path(str(Path(__file__).with_name("toy.py")))


@pytest.fixture
def toy(monkeypatch):
    """Nothing takes time here but a shadow model's training: ten seconds."""
    now = SimpleNamespace(seconds=0.0)
    for module in (once, shadows):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    made = toys["Toy"](memory=1.0, n=40, population=30)
    train = made.view.train

    def slowly(rows, seed):
        now.seconds += 10
        return train(rows, seed)

    made.view = replace(made.view, train=slowly)
    return made


def test_the_second_attack_on_a_view_costs_as_much_as_the_first(toy):
    attacks = [LiraAttack(shadows=8), RmiaAttack(shadows=6), LiraAttack(shadows=8), RmiaAttack(shadows=10)]
    assert [attack.run(toy.view).seconds for attack in attacks] == [80, 60, 80, 100]
    assert toy.trained == 10


def test_shadow_models_read_back_cost_what_they_took(toy, tmp_path):
    assert LiraAttack(shadows=6).run(toys["with_store"](toy, tmp_path)).seconds == 60
    sorted(tmp_path.glob("shadow-*.npz"))[2].unlink()
    again = toys["with_store"](toy, tmp_path)
    assert LiraAttack(shadows=6).run(again).seconds == 60
    assert toy.trained == 7
    assert RmiaAttack(shadows=6).run(again).seconds == 60
    assert toy.trained == 7


def test_shadow_models_of_an_earlier_version_are_still_read(toy, tmp_path):
    whole = LiraAttack(shadows=4).run(toys["with_store"](toy, tmp_path)).scores["tail"]
    for path in tmp_path.glob("shadow-*.npz"):
        with np.load(path) as stored:
            older = {name: stored[name] for name in stored.files if name != "seconds"}
        with Sealed(tmp_path).writing(path) as stream:
            np.savez(stream, **older)
    again = LiraAttack(shadows=4).run(toys["with_store"](toy, tmp_path))
    np.testing.assert_array_equal(again.scores["tail"], whole)
    assert (again.seconds, toy.trained) == (0, 4)
