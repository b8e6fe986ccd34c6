"""Verification by who holds the edge's weights: fresh noise beats draws that are owned, and drawn faces."""

from __future__ import annotations

import copy
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier import session as job
from privhier.attacks.fine_tune_metric import FineTuneMetricAttack, _score
from privhier.attacks.parts.fresh_noise import FreshReleases
from privhier.attacks.parts.people import verification_auc
from privhier.attacks.parts.selection import OwnSplit
from privhier.attacks.view import AuxiliarySet

World = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "conftest.py"))["World"]
second = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["second"]
SMALL = {"target": "identity", "draws": 6, "epochs": 4, "width": 8}


def test_a_photo_is_not_compared_with_another_draw_of_itself():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(5), 2)
    photos = rng.standard_normal((10, 4)).astype(np.float32)
    draws = [photos + 0.01 * rng.standard_normal(photos.shape).astype(np.float32) for _ in range(3)]
    each = [verification_auc(draw, people) for draw in draws]
    assert _score(np.concatenate(draws), people) == pytest.approx(np.mean(each))
    assert verification_auc(np.concatenate(draws), np.tile(people, 3)) > 0.05 + np.mean(each)


def test_it_draws_noise_of_its_own_and_needs_no_more_than_one_owned_draw():
    """With one draw of every photo in the view: what it is fitted on, it releases itself."""
    world = World(maps=False, leak=True, edge=True, draws=1)
    asked: list[int] = []
    owned = world.view.aux.releases

    def releases(k):
        asked.append(k)
        return owned(k)

    view = replace(world.view, aux=replace(world.view.aux, releases=releases))
    result = FineTuneMetricAttack(**SMALL).run(view)
    assert set(asked) == {0}  # for the columns' scale
    assert result.queries > 160 * 2 * 6
    assert world.score(result) > 0.8
    assert abs(result.validation - world.score(result)) < 0.12


def test_it_says_the_same_whatever_the_victims_are_called():
    """It holds no truth of the victims to look at, and its choice is made before theirs is known."""
    world = World(maps=True, leak=True, edge=True, n_victims=24)
    result = FineTuneMetricAttack(**SMALL).run(world.view)
    other = replace(world.view, releases=world.view.releases[::-1].copy())
    again = FineTuneMetricAttack(**SMALL).run(other)
    assert (again.selected, again.validation) == (result.selected, result.validation)
    np.testing.assert_allclose(again.embeddings[::-1], result.embeddings, atol=1e-5)


def test_it_does_not_apply_without_weights_or_people():
    world = World(maps=False, leak=True, edge=True, n_victims=4)
    attack = FineTuneMetricAttack()
    assert "weights" in attack.refuses(replace(world.view, white_box=None))
    nameless: AuxiliarySet = replace(world.view.aux, labels={})
    assert "names no people" in attack.refuses(replace(world.view, aux=nameless))


def test_who_cannot_start_a_network_is_left_with_closed_forms():
    view = World(maps=False, leak=True, edge=True, n_victims=4).view
    attack, noise = FineTuneMetricAttack(**SMALL), FreshReleases(view, "test")
    few = OwnSplit(train=np.arange(12), validation=np.arange(40, 60))  # three people
    held_out = noise.held_out(few.validation)
    for start in ("hidden layers", "new network"):
        assert attack._network(view, few, noise, held_out, start) is None
    edge = copy.deepcopy(view.white_box.edges[0])
    edge.task_names = edge.sensitive_names = ()
    edge.task_exits = edge.adversarial_exits = torch.nn.ModuleList()
    bare = replace(view, white_box=replace(view.white_box, edges=(edge, edge)))
    many = OwnSplit(train=np.arange(40), validation=np.arange(40, 60))
    assert attack._network(bare, many, noise, held_out, "hidden layers") is None
    assert attack._network(bare, many, noise, held_out, "new network") is not None


def test_on_drawn_faces_it_beats_guessing_and_stands_in_the_result(repository, tmp_path):
    config = second(
        repository,
        "dataset.sensitive=[male, identity]",
        "dataset.options={images: 600, identities: 120}",
        "defense.name=none",
        "defense.options={}",
        "model.bottleneck.size=16",
        "release.sigma=0.05",
        "attacks.adaptive=true",
        "attacks.auxiliary=200",
        "attacks.victims=120",
        "attacks.training_victims=20",
        "attacks.attribute=[logistic_regression]",
        "attacks.verification=[{name: metric, options: {epochs: 0}}, "
        "{name: fine_tune_metric, options: {epochs: 3, width: 8}}]",
    )
    session = job.open_session(config, tmp_path / "run")
    found = job.attack(session, job.train(session)).leakage["identity"]
    rows = {row.attack: row for row in found.attacks}
    mine = rows["fine_tune_metric@white_box"]
    assert mine.threat_model == "white_box"
    assert mine.verification_auc.low > 0.55
