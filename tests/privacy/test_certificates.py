import itertools

import numpy as np
import pytest
import torch

from privhier.errors import ConfigError, DataError, GuaranteeError
from privhier.metrics.bounds import mean_auc_lower_bound, recall_lower_bound
from privhier.metrics.classification import auc, balanced_accuracy, macro_auc
from privhier.metrics.optimal import best_auc, best_balanced_accuracy, best_macro_auc
from privhier.privacy.certificates import JOINT_ALPHABET, Shares, bounds, certify, check_certificate
from privhier.privacy.channel_bounds import channel_contraction, checked_channel, mixed
from privhier.privacy.labels import flip_matrix, randomize
from privhier.privacy.noise import SeededNoise

DRAWS = 4000


def response(epsilon, letters):
    return checked_channel(flip_matrix(epsilon, letters).numpy())


def rows(*given):
    """Distributions of so many letters."""
    return np.array(given, dtype=float) / np.sum(given, axis=1, keepdims=True)


# name: the classes' distributions, images of every person in each class, channel
SETTINGS = {
    "two letters, few people": (rows([3, 7], [7, 3]), [[1] * 40, [1] * 60], None),
    "nothing to see": (np.full((2, 16), 1 / 16), [[1] * 300, [1] * 300], None),
    "many letters, unequal classes": (
        rows(np.arange(1, 65), np.arange(64, 0, -1)),
        [[1] * 50, [1] * 2000],
        None,
    ),
    "five classes": (rows(*(0.1 + np.eye(5))), [[1] * n for n in (30, 60, 90, 120, 200)], None),
    "people with one to twenty images": (rows([1, 1, 2], [2, 1, 1]), [[1, 5, 20] * 30, [2, 3, 4] * 40], None),
    "people with thirty images": (rows([3, 7], [7, 3]), [[30] * 40, [30] * 60], None),
    "randomized response, epsilon 1": (rows([9, 1], [1, 9]), [[1] * 200, [1] * 100], response(1.0, 2)),
    "randomized response, epsilon 3, images": (
        rows([5, 1, 1, 1], [1, 1, 1, 5]),
        [[1, 2, 6] * 30, [3] * 90],
        response(3.0, 4),
    ),
}


def simulate(name):
    """Frequencies of DRAWS samples (a person's images show one letter), shares, true scores, channel."""
    truth, images, channel = SETTINGS[name]
    rng = np.random.default_rng(0)
    counts = np.zeros((DRAWS, *truth.shape))
    table = []
    for k, (row, people) in enumerate(zip(truth, images, strict=True)):
        for size in set(people):
            counts[:, k] += size * rng.multinomial(people.count(size), row, size=DRAWS)
        table += [[size if j == k else 0 for j in range(len(truth))] for size in people]
    shares = Shares(np.array(table))
    behind = truth if channel is None else mixed(truth, channel)
    best = best_balanced_accuracy(behind), best_macro_auc(behind, shares.counts)
    return counts / counts.sum(-1, keepdims=True), shares, best, channel


def misses(bound, best):
    return float((bound < best).mean())


@pytest.mark.parametrize("name", SETTINGS)
def test_coverage_over_4000_draws(name):
    frequencies, shares, best, channel = simulate(name)
    found = bounds(frequencies, shares, 0.05, channel=channel)
    assert misses(found[0], best[0]) <= 0.05
    assert misses(found[1], best[1]) <= 0.05
    assert found[0].mean() < 1  # and it says something


@pytest.mark.parametrize("name", ["two letters, few people", "randomized response, epsilon 1"])
def test_a_bound_that_is_too_small_on_purpose_is_caught(name):
    frequencies, shares, best, channel = simulate(name)
    eta = channel_contraction(channel)
    recall, area = bounds(frequencies, shares, 0.05, channel=channel)
    # The bare plug-in; a constant of 1/4 where McDiarmid has 1; the channel's contraction taken twice.
    assert misses(recall - shares.recall_slack(0.05, eta), best[0]) > 0.05
    assert misses(area - shares.auc_slack(0.05, eta), best[1]) > 0.05
    assert misses(recall - 0.75 * shares.recall_slack(0.05, eta), best[0]) > 0.05
    if channel is not None:
        twice = shares.recall_slack(0.05, eta) - shares.recall_slack(0.05, eta**3)
        assert misses(recall - twice, best[0]) > 0.05


def test_images_counted_as_people_are_caught():
    frequencies, shares, best, _ = simulate("people with thirty images")
    single = Shares(np.repeat(np.eye(2, dtype=np.int64), shares.counts, axis=0))
    recall, area = bounds(frequencies, single, 0.05)
    assert (single.counts == shares.counts).all()
    assert misses(recall, best[0]) > 0.05
    assert misses(area, best[1]) > 0.05


def test_the_plug_in_errs_upward_and_never_downward():
    for name in SETTINGS:
        frequencies, shares, best, channel = simulate(name)
        behind = frequencies if channel is None else mixed(frequencies, channel)
        recalls, areas = best_balanced_accuracy(behind), best_macro_auc(behind, shares.counts)
        for values, truth in zip((recalls, areas), best, strict=True):
            assert values.mean() > truth - 4 * values.std() / np.sqrt(DRAWS)


def test_people_in_both_classes_add_their_share_of_the_pairs():
    # A person shows letters (0, 1) or (2, 0), of class 1 and class 0, equally often; the letter is the score.
    kinds, people = np.array([[0, 1], [2, 0]]), 3
    truth = auc(np.array([0.0, 2, 1, 0]), np.array([1, 1, 0, 0]))
    labels = np.tile([1, 0], people)
    drawn = [kinds[list(kind)].ravel() for kind in itertools.product(range(2), repeat=people)]
    expected = np.mean([auc(letters.astype(float), labels) for letters in drawn])
    shares = Shares.of(labels, np.repeat(np.arange(people), 2), 2)
    assert shares.images.tolist() == [[1, 1]] * people
    slack = np.sqrt(np.log(20) / 2 * people * (2 / people) ** 2)
    alone = shares.auc_slack(0.05) - slack
    assert alone == pytest.approx(1 / people)
    assert (
        truth - alone <= expected < truth
    )  # the plug-in of a fixed score errs downward, by no more than that
    assert shares.auc_slack(0.05, 0.2) == pytest.approx(0.2 * slack + 0.4 / people)


def test_formulas_with_one_image_and_with_several():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [500, 800, 300])
    letters = rng.integers(0, 6, 1600)
    frequencies = np.stack(
        [np.bincount(letters[labels == k], minlength=6) / (labels == k).sum() for k in range(3)]
    )
    slack = np.sqrt(np.log(1 / 0.05) / 2 * (1 / 500 + 1 / 800 + 1 / 300) / 9)
    found = certify(letters, labels, np.arange(1600), n_letters=6, n_classes=3)
    assert found.balanced_accuracy == pytest.approx(frequencies.max(axis=0).sum() / 3 + slack)
    assert (found.n, found.people, found.letters, found.confidence, found.reason) == (1600, 1600, 6, 0.95, "")

    two, p, q = labels < 2, frequencies[1], frequencies[0]
    area = 0.5 + np.abs(np.outer(p, q) - np.outer(q, p)).sum() / 4
    found = certify(letters[two], labels[two], np.arange(1300), n_letters=6, n_classes=2, shares=3)
    slack = np.sqrt(np.log(3 / 0.05) / 2 * (1 / 500 + 1 / 800))
    assert found.auc == pytest.approx(area + slack)

    people = np.concatenate([np.arange(500) // 5, 1000 + np.arange(800) // 2])
    found = certify(letters[two], labels[two], people, n_letters=6, n_classes=2, confidence=0.99)
    squares = 100 * (5 / 500) ** 2 + 400 * (2 / 800) ** 2
    assert found.auc == pytest.approx(area + np.sqrt(np.log(100) / 2 * squares))
    assert found.people == 500


def test_the_constant_of_the_auc_cannot_be_smaller():
    # One person of n moves the plug-in by 1/n: from a letter of the other class to one of their own.
    n = 1000
    p, q = np.array([n - 1, 1, 0]) / n, np.array([n - 2, 2, 0]) / n
    moved = np.array([n - 1, 0, 1]) / n
    assert best_auc(moved, q) - best_auc(p, q) == pytest.approx(1 / n, rel=0.01)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_a_channel_enters_exactly(epsilon):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    letters = rng.integers(0, 3, 400) + labels
    channel = response(epsilon, 4)
    found = certify(letters, labels, np.arange(400), n_letters=4, n_classes=2, channel=channel)
    counts = np.bincount(labels)
    shares = (
        np.stack([np.bincount(letters[labels == k], minlength=4) / counts[k] for k in range(2)]) @ channel
    )
    eta = (np.exp(epsilon) - 1) / (np.exp(epsilon) + 3)
    slack = eta * np.sqrt(np.log(20) / 2 * (1 / counts).sum())
    assert found.balanced_accuracy == pytest.approx(shares.max(axis=0).sum() / 2 + slack / 2, abs=1e-9)
    assert found.auc == pytest.approx(best_auc(shares[1], shares[0]) + slack, abs=1e-9)
    clear = certify(letters, labels, np.arange(400), n_letters=4, n_classes=2)
    assert found.balanced_accuracy < clear.balanced_accuracy
    assert found.auc < clear.auc
    identity = certify(letters, labels, np.arange(400), n_letters=4, n_classes=2, channel=np.eye(4))
    assert identity.balanced_accuracy == clear.balanced_accuracy
    blind = certify(letters, labels, np.arange(400), n_letters=4, n_classes=2, channel=np.full((4, 7), 1 / 7))
    assert blind.balanced_accuracy == pytest.approx(0.5)
    assert blind.auc == pytest.approx(0.5)


def test_no_attacker_on_a_tiny_alphabet_beats_it_on_these_records():
    rng = np.random.default_rng(3)
    for _ in range(20):
        labels, letters = np.repeat([0, 1, 2], [6, 4, 5]), rng.integers(0, 3, 15)
        found = certify(letters, labels, np.arange(15), n_letters=3, n_classes=3)
        for answer in itertools.product(range(3), repeat=3):
            assert balanced_accuracy(np.array(answer)[letters], labels, 3) <= found.balanced_accuracy
        for scores in itertools.product(range(3), repeat=3):
            probabilities = np.eye(3)[np.array(scores)[letters]]
            assert macro_auc(probabilities, labels) <= found.auc


def test_several_letters_a_record_are_one_joint_letter():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    first = rng.integers(0, 2, 1000)
    letters = np.stack([first, first ^ labels], axis=1)  # either alone says nothing, both say everything
    people = np.arange(1000)
    both = certify(letters, labels, people, n_letters=2, n_classes=2)
    assert both.balanced_accuracy == both.auc == 1.0
    assert both.letters == 4
    assert all(
        certify(letters[:, j], labels, people, n_letters=2, n_classes=2).balanced_accuracy < 0.6
        for j in (0, 1)
    )
    quiet = certify(letters, labels, people, n_letters=2, n_classes=2, channel=response(0.5, 2))
    assert quiet.balanced_accuracy < 0.6


def test_where_there_is_none_it_says_why():
    letters, labels = np.zeros((10, 5), np.int64), np.arange(10) % 2
    found = certify(letters, labels, np.arange(10), n_letters=16, n_classes=2)
    assert found.balanced_accuracy is found.auc is None
    assert found.reason == f"16^5 joint letters are more than {JOINT_ALPHABET}"
    assert certify(letters[:, :4], labels, np.arange(10), n_letters=16, n_classes=2).reason == ""
    found = certify(letters[:, 0], labels, np.arange(10), n_letters=16, n_classes=3)
    assert found.auc is None
    assert found.reason == "class 2 has no record among these people"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"letters": np.array([0, 4])}, DataError),
        ({"letters": np.array([0, -1])}, DataError),
        ({"letters": np.array([0.0, 1.0])}, DataError),
        ({"letters": np.array([0])}, DataError),
        ({"letters": np.zeros((2, 0), np.int64)}, DataError),
        ({"labels": np.array([0, 2])}, DataError),
        ({"labels": np.array([0, -1])}, DataError),
        ({"people": np.array([[0, 1]])}, DataError),
        (
            {"letters": np.zeros(0, np.int64), "labels": np.zeros(0, np.int64), "people": np.zeros(0, int)},
            DataError,
        ),
        ({"confidence": 1.0}, ConfigError),
        ({"confidence": float("nan")}, ConfigError),
        ({"shares": 0}, ConfigError),
        ({"n_classes": 1}, ConfigError),
        ({"n_letters": 0}, ConfigError),
        ({"channel": np.eye(3)}, ConfigError),
    ],
)
def test_what_cannot_be_certified_is_refused(change, error):
    given = {
        "letters": np.array([0, 3]),
        "labels": np.array([0, 1]),
        "people": np.array([7, 9]),
        "n_letters": 4,
        "n_classes": 2,
    }
    assert certify(**given).auc == 1.0
    with pytest.raises(error, match=r"certificate\.|letters\."):
        certify(**given | change)


def attacked(epsilon, claimed, *, n=4000, seed=0, letters=4):
    """A record's letter tells its class: the optimal attacker's lower bounds, and the certificate."""
    labels = np.arange(n) % 2
    code = labels * (letters - 1)
    answers = randomize_letters(code, epsilon, letters, seed)
    found = certify(
        code, labels, np.arange(n), n_letters=letters, n_classes=2, channel=response(claimed, letters)
    )
    score = (answers == letters - 1) - (answers == 0).astype(float)
    predictions = np.where(score == 0, np.arange(n) // 2 % 2, score > 0).astype(int)
    probabilities = np.stack([-score, score], axis=1)
    return (recall_lower_bound(predictions, labels, 2), mean_auc_lower_bound(probabilities, labels)), found


def randomize_letters(code, epsilon, letters, seed):
    return randomize(torch.from_numpy(code), epsilon, letters, SeededNoise(seed, "letters")).numpy()


def test_an_honest_attacker_raises_no_alarm_and_comes_near():
    for seed in range(20):
        lower, found = attacked(2.0, 2.0, seed=seed)
        check_certificate("race", lower[0], found.balanced_accuracy)
        check_certificate("race", lower[1], found.auc)
    assert lower[0] > found.balanced_accuracy - 0.12


def test_less_noise_than_certified_fails_the_run():
    lower, found = attacked(3.0, 1.0)
    with pytest.raises(GuaranteeError, match=r"99\.99 % lower bound must not lie above what is certified"):
        check_certificate("balanced accuracy of race", lower[0], found.balanced_accuracy)
    with pytest.raises(GuaranteeError, match="AUC of race"):
        check_certificate("AUC of race", lower[1], found.auc)


def test_an_attacker_who_sees_more_than_the_letter_fails_the_run():
    labels = np.arange(2000) % 2
    found = certify(np.zeros(2000, int), labels, np.arange(2000), n_letters=2, n_classes=2)
    with pytest.raises(GuaranteeError):
        check_certificate("race", recall_lower_bound(labels, labels, 2), found.balanced_accuracy)


def test_no_certificate_passes_and_a_missing_number_does_not():
    check_certificate("race", 1.0, None)
    check_certificate("race", 0.6, 0.6)
    for pair in ((float("nan"), 0.6), (0.6, float("nan"))):
        with pytest.raises(GuaranteeError):
            check_certificate("race", *pair)


def test_an_auc_above_is_refuted_in_the_mean_though_single_pairs_may_reach_one():
    # Half of the records are told apart perfectly, the other half not at all: the mean is certified.
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2
    code = np.where(np.arange(4000) < 2000, labels * 2, 1)
    found = certify(code, labels, np.arange(4000), n_letters=3, n_classes=2)
    assert found.auc == pytest.approx(0.875, abs=0.06)
    probabilities = np.eye(3)[code][:, [0, 2]] + rng.random((4000, 1))
    check_certificate("race", mean_auc_lower_bound(probabilities, labels), found.auc)
    assert auc((code - 1.0), labels) == pytest.approx(0.875)


def test_a_letter_answered_twice_is_two_letters():
    labels = np.repeat([0, 1], 2000)
    channel, people = response(1.5, 2), np.arange(4000)
    once = certify(labels, labels, people, n_letters=2, n_classes=2, channel=channel)
    twice = certify(np.stack([labels] * 2, 1), labels, people, n_letters=2, n_classes=2, channel=channel)
    keep = channel[0, 0]
    # A second answer decides no better (where they differ it is a toss), but it ranks better.
    assert keep < once.balanced_accuracy < keep + 0.02
    assert keep < twice.balanced_accuracy < keep + 0.03
    pair = np.array([keep**2, 2 * keep * (1 - keep), (1 - keep) ** 2])
    ranked = best_auc(pair[::-1], pair)
    assert keep < once.auc < ranked < twice.auc < ranked + 0.05
