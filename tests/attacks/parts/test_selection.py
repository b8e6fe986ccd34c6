import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from privhier.attacks.parts.selection import (
    AttributeProblem,
    OwnSplit,
    auc_score,
    balanced_accuracy,
    choose_rule,
    is_inverted,
    own_split,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(5))
def test_the_own_split_never_cuts_a_group_and_keeps_every_class_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 120, 400)
    labels = np.where(groups % 40 == 1, 2, groups % 7 == 0).astype(np.int64)
    labels[rng.choice(400, 30)] = -1
    split = own_split(labels, groups, rng)
    assert not set(groups[split.train]) & set(groups[split.validation])
    together = np.sort(np.concatenate([split.train, split.validation]))
    assert np.array_equal(together, np.flatnonzero(labels >= 0))
    assert set(labels[split.train]) == set(labels[split.validation]) == {0, 1, 2}
    assert 0.1 < len(split.validation) / len(together) < 0.35


def test_a_class_with_a_single_group_is_trained_on():
    split = own_split(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 3]), np.random.default_rng(0))
    assert set(split.train.tolist()) >= {3, 4}


def test_auc_is_macro_one_vs_rest(rng):
    labels = rng.integers(0, 4, 300)
    probabilities = rng.dirichlet(np.ones(4), 300) + 0.3 * np.eye(4)[labels]
    probabilities = (probabilities / probabilities.sum(1, keepdims=True)).astype(np.float64)
    ours = auc_score(probabilities, labels)
    assert ours == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))
    assert auc_score(probabilities, np.zeros(300, int)) == 0.5


def test_a_rare_class_gets_a_threshold_for_balanced_accuracy(rng):
    labels = (rng.random(4000) < 0.05).astype(np.int64)
    logit = np.log(0.05 / 0.95) + 2 * labels + rng.standard_normal(4000)
    p = 1 / (1 + np.exp(-logit))
    probabilities = np.stack([1 - p, p], axis=1).astype(np.float32)
    rule = choose_rule(probabilities, labels, np.array([0.95, 0.05], np.float32), top1=False)
    ours = balanced_accuracy(rule.predict(rule.orient(probabilities)), labels)
    plain = balanced_accuracy(probabilities.argmax(1), labels)
    assert not rule.flip
    assert ours > plain + 0.2
    assert ours > 0.8  # the best possible threshold reaches Phi(1) = 0.84


def test_an_attacker_below_chance_flips_its_sign(rng):
    labels = rng.integers(0, 2, 500)
    p = np.clip(0.5 - 0.3 * (labels - 0.5) + 0.1 * rng.standard_normal(500), 0.01, 0.99)
    probabilities = np.stack([1 - p, p], axis=1).astype(np.float32)
    rule = choose_rule(probabilities, labels, np.array([0.5, 0.5], np.float32), top1=False)
    oriented = rule.orient(probabilities)
    assert rule.flip
    assert auc_score(oriented, labels) == pytest.approx(1 - auc_score(probabilities, labels), abs=1e-6)
    assert balanced_accuracy(rule.predict(oriented), labels) > 0.85
    assert np.array_equal(np.sort(oriented, axis=1), np.sort(probabilities, axis=1))


def test_several_classes_are_corrected_for_their_priors(rng):
    priors = np.array([0.8, 0.15, 0.05])
    labels = rng.choice(3, 6000, p=priors)
    x = labels[:, None] == np.arange(3)
    scores = 1.5 * x + rng.standard_normal((6000, 3))
    density = np.exp(1.5 * scores) * priors
    probabilities = (density / density.sum(1, keepdims=True)).astype(np.float32)
    rule = choose_rule(probabilities, labels, priors.astype(np.float32), top1=False)
    plain = choose_rule(probabilities, labels, priors.astype(np.float32), top1=True)
    assert np.array_equal(plain.predict(probabilities), probabilities.argmax(1))
    gain = balanced_accuracy(rule.predict(probabilities), labels)
    assert gain > balanced_accuracy(plain.predict(probabilities), labels) + 0.05


def says(p):
    return np.stack([1 - p, p], axis=1).astype(np.float32)


def problem_of(labels, groups=None):
    everyone = np.arange(len(labels))
    return AttributeProblem(
        "secret", labels, 2, OwnSplit(everyone, everyone), everyone if groups is None else groups
    )


def test_a_sign_is_not_turned_on_noise_and_the_score_is_that_of_the_sign_taken():
    """With a flip below one half, half of these would have been turned, and none could score below it."""
    flips, scores, areas = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 240)
        guess = says(rng.random(240))
        areas.append(auc_score(guess, labels))
        found = problem_of(labels).result(validation=guess, victims=guess, selected={}, queries=0)
        flips.append(found.selected["flipped"])
        scores.append(found.validation)
    assert 0 < np.mean(flips) < 0.06
    assert np.allclose(scores, np.where(flips, 1 - np.array(areas), areas))
    assert min(scores) < 0.5


def test_draws_of_a_record_and_photos_of_a_person_count_once():
    """What 1,000 independent rows say clearly, 40 people with 25 rows each do not."""
    people, p = np.tile(np.repeat([1, 0], 5), 4), np.linspace(0.1, 0.9, 40)
    assert auc_score(says(p), people) == 0.375
    groups = np.repeat(np.arange(40), 25)
    labels, photos = people[groups], says(p[groups])
    assert is_inverted(photos, labels)
    assert not is_inverted(photos, labels, groups)
    assert problem_of(labels, groups).score(photos) == 0.375
    assert problem_of(labels).score(photos) == 0.625
    assert problem_of(people).score(np.tile(says(p), (25, 1))) == 0.375


def test_a_split_of_one_class_is_never_inverted():
    assert not is_inverted(says(np.linspace(0.1, 0.9, 30)), np.ones(30, np.int64))
