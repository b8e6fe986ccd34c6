import itertools

import numpy as np
import pytest

from privhier.errors import ConfigError, DataError
from privhier.metrics.optimal import best_auc, best_balanced_accuracy
from privhier.privacy.certificates import Shares, bounds
from privhier.privacy.identity_certificates import (
    certify_verification,
    disjoint_pairs,
    distinct_pictures,
    top1_bound,
)
from privhier.privacy.labels import flip_matrix


def people_with(*images):
    return np.repeat(np.arange(len(images)), images)


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("images", [(3,) * 100, (1,) * 60 + (2,) * 15 + (40,), (1, 2, 3) * 30])
def test_nobody_appears_in_two_pairs(images, matched):
    identity = people_with(*images)
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 3, len(identity))
    pairs = disjoint_pairs(identity, rng, cells if matched else None)
    first, second = identity[pairs.first], identity[pairs.second]
    assert ((first == second) == pairs.same).all()
    assert (pairs.first != pairs.second).all()
    shown = np.concatenate([first[pairs.same], first[~pairs.same], second[~pairs.same]])
    assert len(np.unique(shown)) == len(shown)
    assert 0 < pairs.same.sum() < len(pairs.same)
    if matched:
        assert (cells[pairs.first] == cells[pairs.second])[~pairs.same].all()
    else:
        assert len(shown) >= len(images) - 1  # nobody who could be used is left out


def test_the_split_makes_the_slack_smallest():
    people = 200
    pairs = disjoint_pairs(people_with(*(2,) * people), np.random.default_rng(0))
    slack = 1 / pairs.same.sum() + 1 / (~pairs.same).sum()
    assert slack < 1.01 * min(1 / g + 1 / ((people - g) // 2) for g in range(1, people - 1))


def test_order_and_people_are_drawn_and_repeatable():
    identity = people_with(*(2,) * 400)
    one, again = (disjoint_pairs(identity, np.random.default_rng(5)) for _ in range(2))
    assert (one.first == again.first).all()
    other = disjoint_pairs(identity, np.random.default_rng(6))
    assert (one.first != other.first).any()
    assert 0.3 < (one.first < one.second)[one.same].mean() < 0.7


def test_a_code_of_identity_is_certified_as_one_and_a_blind_code_as_blind():
    identity = people_with(*(2,) * 3000)
    rng = np.random.default_rng(0)
    telling = certify_verification(rng.integers(0, 16, 3000)[identity], identity, rng, n_letters=16)
    assert telling.balanced_accuracy > 0.9
    blind = certify_verification(rng.integers(0, 2, 6000), identity, rng, n_letters=2)
    assert blind.balanced_accuracy < 0.55
    assert blind.auc < 0.6
    assert blind.people == blind.n // 2
    channel = flip_matrix(1.0, 16).numpy()
    quiet = certify_verification(identity % 16, identity, rng, n_letters=16, channel=channel)
    assert quiet.balanced_accuracy < 0.6


def test_coverage_of_verification():
    # A person has one of two kinds, a record shows it with probability 0.8; nothing else is alike.
    people, draws, letters = 150, 1000, 2
    rng = np.random.default_rng(0)
    row = np.array([[0.8, 0.2], [0.2, 0.8]])
    same = np.einsum("ka,kb->ab", row, row).ravel() / 2
    best = best_balanced_accuracy(np.stack([np.full(4, 0.25), same])), best_auc(same, np.full(4, 0.25))
    identity, misses, bare = people_with(*(2,) * people), np.zeros(2), np.zeros(2)
    for _ in range(draws):
        kind = rng.integers(0, 2, people)[identity]
        code = np.where(rng.random(2 * people) < 0.8, kind, 1 - kind)
        found = certify_verification(code, identity, rng, n_letters=letters)
        n = round(people * (np.sqrt(2) - 1)), (people - round(people * (np.sqrt(2) - 1))) // 2
        slack = np.sqrt(np.log(20) / 2 * (1 / n[0] + 1 / n[1]))
        misses += np.array([found.balanced_accuracy, found.auc]) < best
        bare += np.array([found.balanced_accuracy - slack / 2, found.auc - slack]) < best
    assert (misses <= 0.05 * draws).all()
    assert (bare > 0.05 * draws).all()


def test_matching_takes_out_what_the_task_says():
    identity = people_with(*(2,) * 4000)
    rng = np.random.default_rng(0)
    gender = rng.integers(0, 2, 4000)[identity]  # the letter is the task's answer, and nothing else
    random = certify_verification(gender, identity, rng, n_letters=2)
    matched = certify_verification(gender, identity, rng, n_letters=2, matched=gender)
    assert random.balanced_accuracy > 0.75
    assert matched.balanced_accuracy < 0.55


def test_pairs_give_the_bounds_of_unordered_pairs():
    identity = people_with(*(2,) * 500)
    code = np.random.default_rng(0).integers(0, 3, 1000)
    found = certify_verification(code, identity, np.random.default_rng(1), n_letters=3, shares=2)
    pairs = disjoint_pairs(identity, np.random.default_rng(1))
    low, high = np.sort([code[pairs.first], code[pairs.second]], axis=0)
    unordered = {pair: n for n, pair in enumerate(itertools.combinations_with_replacement(range(3), 2))}
    letter = np.array([unordered[pair] for pair in zip(low.tolist(), high.tolist(), strict=True)])
    shares = np.stack(
        [np.bincount(letter[pairs.same == k], minlength=6) / (pairs.same == k).sum() for k in (0, 1)]
    )
    independent = Shares.of(pairs.same.astype(int), np.arange(len(letter)), 2)
    recall, area = bounds(shares, independent, 0.025)
    assert found.balanced_accuracy == pytest.approx(float(recall))
    assert found.auc == pytest.approx(float(area))


def test_where_there_is_none_it_says_why():
    rng = np.random.default_rng(0)
    alone = certify_verification(np.zeros(9, int), np.arange(9), rng, n_letters=4)
    assert alone.auc is None
    assert alone.reason == "0 pairs of one person and 4 of two can be made of these people"
    one = certify_verification(np.zeros(4, int), np.zeros(4, int), rng, n_letters=4)
    assert one.balanced_accuracy is None
    identity = people_with(*(2,) * 10)
    wide = certify_verification(np.zeros((20, 2), int), identity, rng, n_letters=17)
    assert wide.reason.startswith("17^4 pairs of joint letters are more than")
    assert certify_verification(np.zeros((20, 2), int), identity, rng, n_letters=16).reason == ""


def test_what_cannot_be_certified_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError):
        certify_verification(np.array([0, 5]), np.array([0, 1]), rng, n_letters=4)
    with pytest.raises(DataError):
        certify_verification(np.array([0, 1]), np.array([0, 1]), rng, n_letters=4, matched=np.zeros(3, int))
    with pytest.raises(ConfigError):
        certify_verification(np.array([0, 1]), np.array([0, 1]), rng, n_letters=4, confidence=0)
    for given in ({"people": 0, "n_letters": 4}, {"people": 4, "n_letters": 0}):
        with pytest.raises(ConfigError):
            top1_bound(**given)


def test_nobody_is_named_better_than_the_letters_allow():
    rng = np.random.default_rng(0)
    people, letters = 6, 3
    assert top1_bound(people, letters) == 0.5
    assert top1_bound(2, letters) == 1.0
    assert top1_bound(100, letters, letters_per_record=2) == pytest.approx(0.09)
    channel = rng.dirichlet(np.ones(4), letters)
    bound, reached = top1_bound(people, letters, channel=channel), 0.0
    for code in itertools.product(range(letters), repeat=people):
        behind = channel[list(code)]
        right = behind.max(axis=0).sum() / people  # the best guess of every answer
        assert right <= bound + 1e-12
        reached = max(reached, right)
    assert reached == pytest.approx(bound)
    assert distinct_pictures(16) == 16
    assert distinct_pictures(8, 3) == 512
