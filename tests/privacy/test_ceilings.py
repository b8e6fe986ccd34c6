import numpy as np
import pytest
import torch
from scipy.stats import norm

from privhier.errors import ConfigError, GuaranteeError
from privhier.metrics.bounds import auc_lower_bound, macro_auc_lower_bound, recall_lower_bound
from privhier.metrics.classification import auc, balanced_accuracy, macro_auc
from privhier.privacy.accounting import gaussian_mu, laplace_epsilon, solve_sigma
from privhier.privacy.ceilings import Ceiling, ceiling, check_ceiling, contraction, pure_ceiling
from privhier.privacy.mechanism import Mechanism
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism


def attack(mechanism, n, *, releases=1, classes=2, claimed=None, seed=0, scale=100.0):
    """The optimal attacker against records as far apart as the clip allows: a simplex of norm C.

    Returns labels, class scores (log-likelihoods up to a constant) and predictions.
    """
    labels = np.arange(n) % classes
    corners = np.eye(classes) - 1 / classes
    corners = torch.from_numpy(corners / np.linalg.norm(corners, axis=1, keepdims=True)).float()
    features = corners[torch.from_numpy(labels)] * scale  # far outside: the clip must bring them back
    source = SeededNoise(seed, "attack")
    total = sum(mechanism.sanitize(features, source).values.double() for _ in range(releases))
    scores = (total @ corners.double().T).numpy()
    return labels, scores, scores.argmax(1)


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("releases", [1, 10])
def test_the_optimal_attacker_reaches_the_gaussian_ceilings_and_does_not_pass(epsilon, releases):
    sigma = solve_sigma("gaussian", epsilon, 1e-5, 1.0, releases)
    labels, scores, predictions = attack(ReleaseMechanism("gaussian", 1.0, sigma), 40_000, releases=releases)
    bound = ceiling(Mechanism("gaussian", 1.0, sigma), releases, 2)
    margin = 4 * 0.5 / np.sqrt(20_000)
    assert balanced_accuracy(predictions, labels, 2) == pytest.approx(bound.balanced_accuracy, abs=margin)
    assert auc(scores[:, 1], labels) == pytest.approx(bound.auc, abs=margin)
    check_ceiling("recall", recall_lower_bound(predictions, labels, 2), bound.balanced_accuracy)
    check_ceiling("auc", auc_lower_bound(scores[:, 1], labels), bound.auc)


def test_five_classes_stay_below_both_gaussian_ceilings_and_come_near():
    sigma = solve_sigma("gaussian", 8.0, 1e-5, 1.0, 1)
    labels, scores, predictions = attack(ReleaseMechanism("gaussian", 1.0, sigma), 40_000, classes=5)
    bound = ceiling(Mechanism("gaussian", 1.0, sigma), 1, 5)
    recall, area = balanced_accuracy(predictions, labels, 5), macro_auc(scores, labels)
    # A simplex of five does not span the ball's diameter, so the bound is not reached; nor is it idle.
    assert 0.2 + 0.75 * (bound.balanced_accuracy - 0.2) < recall < bound.balanced_accuracy
    assert 0.5 + 0.7 * (bound.auc - 0.5) < area < bound.auc
    check_ceiling("auc", macro_auc_lower_bound(scores, labels), bound.auc)


def test_laplace_reaches_its_ceiling_on_one_axis_and_randomized_response_everywhere():
    mechanism = ReleaseMechanism("laplace", 1.0, 2.0)
    labels = np.arange(40_000) % 2
    features = torch.from_numpy(labels * 2.0 - 1).float()[:, None] * 50
    release = mechanism.sanitize(features, SeededNoise(0, "laplace")).values[:, 0].numpy()
    bound = ceiling(Mechanism("laplace", 1.0, 2.0), 1, 2)
    recall = balanced_accuracy((release > 0).astype(int), labels, 2)
    assert 0.5 * (bound.balanced_accuracy + 0.5) < recall < bound.balanced_accuracy
    assert auc(release, labels) < bound.auc
    rng = np.random.default_rng(0)
    for k, epsilon in ((2, 1.0), (5, 2.0)):
        truth = rng.integers(0, k, 40_000)
        keep = rng.random(40_000) < np.exp(epsilon) / (np.exp(epsilon) + k - 1)
        answer = np.where(keep, truth, (truth + rng.integers(1, k, 40_000)) % k)
        limit = pure_ceiling(epsilon, k)
        assert balanced_accuracy(answer, truth, k) == pytest.approx(limit.balanced_accuracy, abs=0.01)
        if k == 2:
            assert auc(answer.astype(float), truth) == pytest.approx(limit.auc, abs=0.01)


def test_formulas():
    mu = gaussian_mu(1.2, 1.0, 3)
    assert ceiling(Mechanism("gaussian", 1.0, 1.2), 3, 5) == Ceiling(
        pytest.approx(norm.cdf(norm.ppf(0.2) + mu / 2)), pytest.approx(norm.cdf(mu / np.sqrt(2)))
    )
    e = np.exp(laplace_epsilon(2.0, 1.0, 3))
    assert ceiling(Mechanism("laplace", 1.0, 2.0), 3, 5) == Ceiling(
        pytest.approx(e / (e + 4)), pytest.approx(e / (1 + e))
    )
    assert ceiling(Mechanism("none", 1.0, 0.0), 1, 2) is None
    assert ceiling(Mechanism("gaussian", 1.0, 0.0), 1, 2) is None
    assert ceiling(Mechanism("gaussian", 1.0, 1.0), 0, 4).balanced_accuracy == pytest.approx(0.25)
    assert ceiling(Mechanism("laplace", 1.0, 1e-9), 1, 4) == Ceiling(1.0, 1.0)
    assert contraction(mu) == pytest.approx(2 * norm.cdf(mu / 2) - 1)
    with pytest.raises(ConfigError):
        ceiling(Mechanism("gaussian", 1.0, 1.0), 1, 1)
    with pytest.raises(ConfigError):
        ceiling(Mechanism("cauchy", 1.0, 1.0), 1, 2)


def test_noise_contracts_a_noiseless_advantage():
    rng = np.random.default_rng(0)
    clean = 0.9  # a perfect look at the noiseless features is right this often
    labels = rng.integers(0, 2, 40_000)
    side = np.where(rng.random(40_000) < clean, labels, 1 - labels) * 2.0 - 1
    release = ReleaseMechanism("gaussian", 1.0, 1.2).sanitize(
        torch.from_numpy(side).float()[:, None], SeededNoise(0, "contraction")
    )
    got = 2 * balanced_accuracy((release[:, 0].numpy() > 0).astype(int), labels, 2) - 1
    assert got == pytest.approx((2 * clean - 1) * contraction(gaussian_mu(1.2, 1.0, 1)), abs=0.02)


SABOTAGE = {
    "half the noise": (lambda sigma: ReleaseMechanism("gaussian", 1.0, sigma / 2), 1, 1),
    "noise off": (lambda sigma: ReleaseMechanism("gaussian", 1.0, 0.0), 1, 1),
    "clip off": (lambda sigma: ReleaseMechanism("gaussian", 1e6, sigma), 1, 1),
    "ten releases, one charged": (lambda sigma: ReleaseMechanism("gaussian", 1.0, sigma), 10, 1),
}


@pytest.mark.parametrize("name", SABOTAGE)
@pytest.mark.parametrize("epsilon", [2.0, 8.0])
def test_sabotage_is_caught_by_both_ceilings_with_4000_victims(name, epsilon):
    build, releases, charged = SABOTAGE[name]
    sigma = solve_sigma("gaussian", epsilon, 1e-5, 1.0, 1)
    bound = ceiling(Mechanism("gaussian", 1.0, sigma), charged, 2)
    labels, scores, predictions = attack(build(sigma), 4000, releases=releases)
    with pytest.raises(GuaranteeError, match=r"99\.99 % lower bound"):
        check_ceiling("race", recall_lower_bound(predictions, labels, 2), bound.balanced_accuracy)
    with pytest.raises(GuaranteeError, match="guarantee is wrong"):
        check_ceiling("race", auc_lower_bound(scores[:, 1], labels), bound.auc)


def test_sensitivity_c_charged_for_2c_is_caught():
    # Whoever calibrates to C believes mu is half of what it is; the attacker shows it.
    sigma = solve_sigma("gaussian", 8.0, 1e-5, 0.5, 1)
    wrong = ceiling(Mechanism("gaussian", 0.5, sigma), 1, 2)
    labels, _, predictions = attack(ReleaseMechanism("gaussian", 1.0, sigma), 4000)
    with pytest.raises(GuaranteeError):
        check_ceiling("race", recall_lower_bound(predictions, labels, 2), wrong.balanced_accuracy)


def test_honest_runs_raise_no_alarm_at_our_level_and_few_at_a_loose_one():
    sigma = solve_sigma("gaussian", 2.0, 1e-5, 1.0, 1)
    bound = ceiling(Mechanism("gaussian", 1.0, sigma), 1, 2)
    loose = np.zeros(2)
    for seed in range(300):
        labels, scores, predictions = attack(ReleaseMechanism("gaussian", 1.0, sigma), 400, seed=seed)
        check_ceiling("recall", recall_lower_bound(predictions, labels, 2), bound.balanced_accuracy)
        check_ceiling("auc", auc_lower_bound(scores[:, 1], labels), bound.auc)
        loose[0] += recall_lower_bound(predictions, labels, 2, error=0.1) > bound.balanced_accuracy
        loose[1] += auc_lower_bound(scores[:, 1], labels, error=0.1) > bound.auc
    assert (loose <= 30).all()  # the attacker is optimal, so every alarm here is a false one


def test_a_missing_number_is_an_alarm_and_equality_is_none():
    check_ceiling("equal", 0.7, 0.7)
    for pair in ((float("nan"), 0.7), (0.7, float("nan"))):
        with pytest.raises(GuaranteeError):
            check_ceiling("nan", *pair)
