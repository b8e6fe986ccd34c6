"""On a world with a known answer ``none`` leaks, who claims suppression suppresses, the sabotaged do not."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from privhier.defenses.base import (
    AdversarialOptions,
    Defense,
    classification_loss,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.max_entropy import MaxEntropy

MODULES = ("toy_worlds", "toy_training", "toy_scores")


@pytest.fixture(scope="module")
def toy(repository):
    """The study's modules, imported by path and forgotten afterwards."""
    folder = str(repository / "experiments" / "defenses_toy")
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(folder)
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def bare(toy):
    """What ``none`` leaks through each release: a function that trains it once."""
    known = {}

    def of(world, kind):
        if (world, kind) not in known:
            known[world, kind] = toy.toy_scores.score("none", world, kind)
        return known[world, kind]

    return of


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def registered(own_defenses):
    """Registers a defense that is gone after the test."""
    return lambda entry: own_defenses.register("sabotaged")(entry)


def test_none_leaks_what_theory_says_it_need_not(bare):
    row = bare("linear_gaussian", "vector")
    assert row.excess > 0.15
    assert row.leakage > row.floor + 0.1
    assert abs(row.distance) < 0.02  # it gives up nothing of its task


@pytest.mark.parametrize("name", defenses.names())
def test_who_claims_suppression_suppresses(toy, bare, name):
    if name in toy.toy_scores.NO_CLAIM:
        pytest.skip(f"no claim: {toy.toy_scores.NO_CLAIM[name]}")
    world, kind = toy.toy_scores.places(name)[0]
    row = toy.toy_scores.score(name, world, kind)
    assert toy.toy_scores.suppresses(row, bare(world, kind)), row
    assert row.task > row.optimum_task - 0.06, row  # and has not thrown the task away


class Helped(Defense):
    """Maximum entropy whose adversary is learned through an undetached z: the edge helps it."""

    Options = AdversarialOptions
    options: AdversarialOptions

    def loss(self, batch):
        learning = classification_loss(batch.edge.adversary_logits(batch.z), batch.sensitive_labels)
        return task_loss_per_record(batch) + self.options.weight * batch.strength * learning


class Off(MaxEntropy):
    """Maximum entropy whose term never reaches the edge."""

    def loss(self, batch):
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)


@pytest.mark.parametrize("broken", [Helped, Off])
def test_a_sabotaged_defense_fails_the_same_check(toy, bare, registered, broken):
    registered(broken)
    options = toy.toy_scores.OPTIONS["max_entropy"]
    row = toy.toy_scores.score("sabotaged", "linear_gaussian", "vector", options=options)
    assert not toy.toy_scores.suppresses(row, bare("linear_gaussian", "vector"))


def test_every_option_and_every_excuse_is_of_a_kind_that_the_toy_knows(toy):
    for name in set(toy.toy_scores.OPTIONS) & set(defenses.names()):
        defenses.get(name).Options(**toy.toy_scores.OPTIONS[name])
    assert all(reason for reason in toy.toy_scores.NO_CLAIM.values())


# Theory


def test_the_number_that_is_blind_to_the_secret_says_of_it_what_the_task_says(toy):
    """Against the normal distribution's own areas: z = y g + noise, of which s is known through y only."""
    world = toy.toy_worlds.LinearGaussian(tie=0.7)
    leaked, task = world.optimum()
    a, b = world.directions
    gap = np.linalg.norm(a - (a @ b) / (b @ b) * b)
    assert task == pytest.approx(norm.cdf(2 * gap / np.sqrt(2)), abs=1e-3)
    # Of two records of unlike secret, y differs the same way with 0.49, the other way with 0.09.
    assert leaked == pytest.approx(0.5 + (0.7**2 - 0.3**2) * (task - 0.5), abs=1e-3)
    untied = toy.toy_worlds.LinearGaussian(tie=0.5).optimum()
    assert untied[0] == pytest.approx(0.5, abs=1e-6)


def test_noise_and_clip_cost_the_theory_something_and_never_pay(toy):
    world = toy.toy_worlds.LinearGaussian()
    clean, noised = world.curve(points=5), world.curve(sigma=0.3, points=5)
    assert (noised <= clean + 1e-3).all()
    assert world.whole[0] >= clean[:, 1].max() - 1e-3
    assert world.whole[1] >= clean[:, 0].max() - 1e-3


def test_no_map_of_the_discrete_world_beats_the_linear_program(toy):
    world = toy.toy_worlds.Discrete()
    found = world.deterministic()
    rng = np.random.default_rng(0)
    random = [world.scores(rng.dirichlet(np.full(3, 0.3), size=8)) for _ in range(200)]
    for leaked, task in [*found[::5], *random]:
        assert task <= world.best_task(leaked) + 1e-6
    leaks, keeps = world.optimum()
    assert keeps >= world.whole[1] - 0.02 - 1e-6
    assert leaks < world.label_floor < world.whole[0]


def test_what_is_drawn_follows_the_law(toy):
    drawn = toy.toy_worlds.LinearGaussian().draw(20_000, np.random.default_rng(0))
    assert np.mean(drawn.task == drawn.secret) == pytest.approx(0.6, abs=0.015)
    assert np.isin(drawn.images, (0, 255)).mean() < 1e-4
    x = (drawn.images[:, :, ::4, ::4].reshape(len(drawn.images), -1) - 127.5) / 22
    a, b = toy.toy_worlds.LinearGaussian().directions
    mean = x[(drawn.task == 1) & (drawn.secret == 0)].mean(axis=0)
    assert np.allclose(mean, a - b, atol=0.06)
