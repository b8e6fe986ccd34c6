from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from privhier.attacks.property import MixtureAttack, adjusted_count, shifted_priors
from privhier.attacks.view import AuxiliarySet, View

SHARES = (0.1, 0.5, 0.9)


def toy(leak, shares=SHARES, size=100):
    """Auxiliary share one half, victims mixed to ``shares``; classes overlap (AUC 0.92 at leak 1)."""
    rng = np.random.default_rng(0)
    aux_labels = (np.arange(400) % 2).astype(np.int64)
    victims = np.concatenate([np.arange(size) < round(share * size) for share in shares]).astype(np.int64)

    def release(labels, draw):
        noise = np.random.default_rng((7, draw)).standard_normal((len(labels), 1, 6))
        noise[:, 0, 0] += leak * (2 * labels - 1)
        return noise.astype(np.float32)

    aux = AuxiliarySet(
        images=np.zeros((400, 3, 8, 8), np.uint8),
        labels={"gender": aux_labels},
        n_classes={"gender": 2},
        groups=rng.permutation(400),
        draws=2,
        releases=lambda k: release(aux_labels, k),
    )
    populations = tuple(np.arange(p * size, (p + 1) * size) for p in range(len(shares)))
    view = View("toy", release(victims, 99), (3, 8, 8), aux, seed=1)
    return replace(view, populations=populations)


def test_shares_far_from_the_auxiliary_one_are_found():
    """The constant answer, the auxiliary share of one half, is 0.27 off on average."""
    result = MixtureAttack(target="gender").run(toy(leak=1.0))
    assert np.abs(result.shares[:, 1] - SHARES).mean() < 0.1
    assert result.shares[0, 1] < result.shares[1, 1] < result.shares[2, 1]
    assert -0.1 < result.validation < 0


def test_counting_without_adjusting_would_be_further_off():
    from privhier.attacks.logistic_regression import LogisticRegressionAttack

    view = toy(leak=0.6, size=600)
    votes = LogisticRegressionAttack(target="gender").run(view).predictions
    plain = [votes[rows].mean() for rows in view.populations]
    adjusted = MixtureAttack(target="gender").run(view).shares[:, 1]
    assert np.abs(adjusted - SHARES).mean() < np.abs(np.subtract(plain, SHARES)).mean() / 2


def test_pure_noise_leaves_the_auxiliary_share():
    result = MixtureAttack(target="gender").run(toy(leak=0.0))
    np.testing.assert_allclose(result.shares, 0.5, atol=0.1)


@pytest.mark.parametrize("size", [1, 2])
def test_tiny_populations_are_answered_with_care(size):
    view = toy(leak=1.0, size=size)
    result = MixtureAttack(target="gender").run(view)
    assert result.shares.shape == (3, 2)
    np.testing.assert_allclose(result.shares.sum(axis=1), 1, atol=1e-5)
    assert np.isfinite(result.shares).all()


def test_what_cannot_be_asked_is_refused():
    view, attack = toy(leak=1.0), MixtureAttack(target="gender")
    assert "no population" in attack.refuses(replace(view, populations=()))
    assert "empty" in attack.refuses(replace(view, populations=(np.arange(0),)))
    assert "no labels" in MixtureAttack(target="age").refuses(view)
    many = replace(view, aux=replace(view.aux, n_classes={"gender": 21}))
    assert "21 classes" in attack.refuses(many)


def overlapping(shares, size=20_000):
    """Posteriors for equal priors of three unit Gaussians, and the true labels."""
    rng = np.random.default_rng(3)
    labels = rng.choice(3, size, p=shares)
    x = np.eye(3)[labels] * 1.5 + rng.standard_normal((size, 3))
    density = np.exp(1.5 * x)
    return density / density.sum(axis=1, keepdims=True), labels


def test_prior_shift_maximizes_the_likelihood():
    posteriors, labels = overlapping([0.7, 0.2, 0.1])
    found = shifted_priors(posteriors, np.full(3, 1 / 3))

    def loss(logits):
        shares = np.exp(logits) / np.exp(logits).sum()
        return -np.log(posteriors @ shares).mean()

    best = minimize(loss, np.zeros(3)).x
    np.testing.assert_allclose(found, np.exp(best) / np.exp(best).sum(), atol=2e-3)
    np.testing.assert_allclose(found, np.bincount(labels) / len(labels), atol=0.02)


def test_adjusted_counts_undo_the_confusion_and_stay_on_the_simplex():
    reference, labels = overlapping([1 / 3, 1 / 3, 1 / 3])
    confusion = np.stack([reference[labels == k].mean(axis=0) for k in range(3)])
    posteriors, _ = overlapping([0.7, 0.2, 0.1])
    found = adjusted_count(posteriors, confusion, np.full(3, 1 / 3))
    np.testing.assert_allclose(found, [0.7, 0.2, 0.1], atol=0.03)
    assert abs(posteriors.mean(axis=0)[0] - 0.7) > 0.1
    # Further out than any mixture can lie: the nearest corner.
    corner = adjusted_count(np.eye(3)[[0]], confusion, np.full(3, 1 / 3))
    np.testing.assert_allclose(corner, [1, 0, 0], atol=1e-6)
    # A class nobody has seen gets nothing.
    unseen = adjusted_count(posteriors, confusion, np.array([0.5, 0.5, 0.0]))
    assert unseen[2] == 0
    assert unseen.sum() == pytest.approx(1)
