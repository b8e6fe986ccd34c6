import numpy as np
import pytest

from privhier.attacks.parts.metrics import discriminant
from privhier.attacks.parts.people import split_people, verification_auc
from privhier.attacks.verification import MetricAttack
from privhier.attacks.view import AuxiliarySet, View


def view_of(releases, people, victims, groups=None):
    n = len(releases)
    return View(
        threat_model="toy",
        releases=victims[:, None].astype(np.float32),
        image_shape=(3, 8, 8),
        aux=AuxiliarySet(
            images=np.zeros((n, 3, 8, 8), np.uint8),
            labels={} if people is None else {"identity": people},
            n_classes={} if people is None else {"identity": int(people.max()) + 1},
            groups=np.arange(n) if groups is None else groups,
            draws=1,
            releases=lambda _k: releases[:, None].astype(np.float32),
        ),
        seed=0,
    )


def nuisance_world(rng, n_people, photos=4):
    """Two small columns say who it is; six large ones change with every photo."""
    who = np.repeat(np.arange(n_people), photos)
    signal = rng.standard_normal((n_people, 2))[who] + 0.2 * rng.standard_normal((len(who), 2))
    mixed = np.hstack([signal, 6 * rng.standard_normal((len(who), 6))])
    return mixed @ np.linalg.qr(np.random.default_rng(9).standard_normal((8, 8)))[0], who


def test_verification_auc_counts_pairs():
    rng = np.random.default_rng(0)
    embeddings, people = rng.standard_normal((12, 3)), np.repeat(np.arange(4), 3)
    same, different = [], []
    for i in range(12):
        for j in range(i):
            a, b = embeddings[i], embeddings[j]
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            (same if people[i] == people[j] else different).append(cosine)
    expected = np.mean([[s > d for d in different] for s in same])
    assert verification_auc(embeddings, people) == pytest.approx(expected, abs=1e-6)


def test_a_learned_metric_beats_plain_cosine_on_unknown_people():
    rng = np.random.default_rng(1)
    releases, who = nuisance_world(rng, 60)
    victims, victim_who = nuisance_world(rng, 40)
    result = MetricAttack(epochs=0).run(view_of(releases, who, victims))
    assert "discriminant" in result.selected["metric"]
    assert verification_auc(result.embeddings, victim_who) > verification_auc(victims, victim_who) + 0.1


def test_the_discriminant_whitens_the_within_person_covariance():
    releases, who = nuisance_world(np.random.default_rng(2), 200, photos=5)
    x = (releases - releases.mean(0)).astype(np.float32)
    projected = x @ discriminant(x, who, shrink=0.0, soft=False, repeats=1)
    within = np.concatenate([projected[who == p] - projected[who == p].mean(0) for p in range(200)])
    covariance = within.T @ within / (1000 - 200)
    np.testing.assert_allclose(covariance, np.eye(8), atol=2e-2)


def test_validation_people_and_their_groups_are_not_trained_on():
    rng = np.random.default_rng(3)
    who = np.repeat(np.arange(50), rng.integers(1, 30, 50))
    groups = np.arange(len(who))
    groups[0] = groups[-1]  # two people share a duplicate
    split = split_people(view_of(np.zeros((len(who), 2)), who, np.zeros((1, 2)), groups), rng)
    assert not set(who[split.train]) & set(who[split.validation])
    assert not set(groups[split.train]) & set(groups[split.validation])
    counts = np.bincount(who[split.validation])
    assert counts.max() <= 10
    assert len(split.validation) > 20


def test_people_must_be_known_and_have_pairs():
    assert "names no people" in MetricAttack().refuses(view_of(np.zeros((40, 2)), None, np.zeros((1, 2))))
    alone = view_of(np.zeros((40, 2)), np.arange(40), np.zeros((1, 2)))
    assert "only 0 auxiliary people" in MetricAttack().refuses(alone)
