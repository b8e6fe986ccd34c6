"""Views without releases: what is in them, and that attackers on them know labels and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privhier.attacks.floors import ANSWERS, FLOOR_ATTACKS, LABELS, answers_view, floor_attacks, labels_view
from privhier.attacks.view import AuxiliarySet, View
from privhier.metrics.label_space import joint_shares, label_cells, label_floor

N, N_AUX = 600, 1200


def population(n, seed):
    """Two tasks, and a secret that depends on both together (an interaction, which no single one tells)."""
    rng = np.random.default_rng(seed)
    tasks = np.stack([rng.integers(0, 2, n), rng.integers(0, 3, n)], axis=1)
    told = (tasks[:, 0] ^ (tasks[:, 1] == 1)).astype(np.int64)
    return tasks, np.where(rng.random(n) < 0.7, told, 1 - told)


@pytest.fixture(scope="module")
def made():
    """A view whose releases say the secret outright, and the labels behind it."""
    tasks, secret = population(N, 1)
    aux_tasks, aux_secret = population(N_AUX, 2)

    def releases(_):
        return aux_secret[:, None, None].astype(np.float32)

    aux = AuxiliarySet(
        images=np.zeros((N_AUX, 3, 4, 4), dtype=np.uint8),
        labels={"secret": aux_secret, "identity": np.repeat(np.arange(N_AUX // 4), 4)},
        n_classes={"secret": 2, "identity": N_AUX // 4},
        groups=np.arange(N_AUX),
        draws=3,
        releases=releases,
    )
    view = View(
        threat_model="curious_cloud",
        releases=secret[:, None, None].astype(np.float32),
        image_shape=(3, 4, 4),
        aux=aux,
        seed=0,
        task_labels=tasks,
        task_classes=(2, 3),
    )
    return view, tasks, aux_tasks, secret


def test_the_labels_view_holds_labels_and_nothing_else_of_a_victim(made):
    view, tasks, aux_tasks, _ = made
    floor = labels_view(view, victims=tasks, auxiliary=aux_tasks, classes=(2, 3))
    assert floor.threat_model == LABELS
    assert np.array_equal(floor.alphabet.letters_of(floor.releases)[:, 0], tasks)
    assert np.array_equal(floor.alphabet.letters_of(floor.aux.releases(0))[:, 0], aux_tasks)
    assert floor.aux.draws == 1
    held = (floor.tail, floor.white_box, floor.task_labels, floor.aux.task_labels)
    assert held == (None, None, None, None)
    assert (floor.task_classes, floor.populations, floor.scratch) == ((), (), {})
    assert not floor.releases.flags.writeable


@pytest.mark.parametrize(("name", "attack"), floor_attacks("attribute", "secret"), ids=lambda x: str(x)[:20])
def test_the_floor_is_what_the_labels_say_whatever_the_releases_say(made, name, attack):
    view, tasks, aux_tasks, secret = made
    silent = replace(view, releases=np.zeros_like(view.releases), aux=view.aux)
    answers = [
        attack.run(labels_view(one, victims=tasks, auxiliary=aux_tasks, classes=(2, 3))).probabilities
        for one in (view, silent)
    ]
    assert np.array_equal(*answers)
    found = roc_auc_score(secret, answers[0][:, 1])
    best = label_floor(joint_shares(label_cells(list(tasks.T), (2, 3)), secret, 6, 2))[1]
    assert found <= best + 0.005
    if name != "logistic_regression":  # which sees no interaction
        assert found > best - 0.03


def test_the_answers_view_asks_for_few_draws_and_keeps_them(made):
    view, _, aux_tasks, _ = made
    asked = []

    def auxiliary(draw):
        asked.append(draw)
        return aux_tasks.astype(np.float32)

    many = replace(view, aux=replace(view.aux, draws=16))
    floor = answers_view(many, victims=np.zeros((N, 2), np.float32), auxiliary=auxiliary)
    assert (floor.threat_model, floor.aux.draws, floor.releases.shape) == (ANSWERS, 4, (N, 1, 2))
    assert floor.aux.releases(1).shape == (N_AUX, 1, 2)
    floor.aux.releases(1)
    assert asked == [1]


def test_a_row_for_every_victim(made):
    view, tasks, aux_tasks, _ = made
    with pytest.raises(ValueError, match="one row for each of 600 victims"):
        labels_view(view, victims=tasks[1:], auxiliary=aux_tasks, classes=(2, 3))


def test_attackers_of_both_kinds_are_known_by_name():
    for kind, listed in FLOOR_ATTACKS.items():
        built = floor_attacks(kind, "identity" if kind == "verification" else "secret")
        assert [name for name, _ in built] == [name for name, _ in listed]
        assert all(attack.kind == kind for _, attack in built)
