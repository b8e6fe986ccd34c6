"""Scores: the worst of several attackers, its interval, and the decision rule for balanced accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from privhier.evaluation.pairs import Pairs, score_verification
from privhier.evaluation.pictures import image_scores
from privhier.evaluation.scores import (
    Outcome,
    Sample,
    bayes_rule,
    classification_leakage,
    mean_score,
    task_scores,
)

RNG = np.random.default_rng(0)


def sample(truth, n_classes=2, groups=None):
    groups = np.arange(len(truth)) if groups is None else groups
    return Sample.draw(truth, n_classes, groups, resamples=300, confidence=0.95, seed=0, name="t")


def outcome(name, scores):
    probabilities = np.stack([1 - scores, scores], axis=1).astype(np.float32)
    return Outcome(name, f"{name}()", probabilities, probabilities.argmax(1), 0.5, {}, 10)


def noisy(truth, strength):
    return 1 / (1 + np.exp(-(strength * (2 * truth - 1) + RNG.standard_normal(len(truth)))))


def test_the_worst_attacker_leads_and_agrees_with_scikit_learn():
    truth = RNG.integers(0, 2, 400)
    both = np.concatenate([truth, truth])
    weak, strong = outcome("weak", noisy(both, 0.2)), outcome("strong", noisy(both, 1.0))
    worst, attacks = classification_leakage(sample(truth), sample(truth), [weak, strong], identity=False)
    assert [attack.attack for attack in attacks] == ["strong", "weak"]
    assert worst.attack == "strong"
    assert worst.auc.value == pytest.approx(roc_auc_score(truth, strong.probabilities[:400, 1]), abs=1e-9)
    expected = balanced_accuracy_score(truth, strong.predictions[:400])
    assert attacks[0].balanced_accuracy.value == pytest.approx(expected, abs=1e-9)
    assert worst.auc.low < worst.auc.value < worst.auc.high
    assert worst.training_records["auc"].n == 400


def test_the_interval_is_that_of_the_maximum_not_of_the_winner():
    """Many equal attackers on pure noise: the largest is above chance, and the interval says so."""
    truth = RNG.integers(0, 2, 200)
    attackers = [outcome(f"a{i}", RNG.random(200)) for i in range(12)]
    worst, attacks = classification_leakage(sample(truth), None, attackers, identity=False)
    single = next(attack for attack in attacks if attack.attack == worst.attack).auc
    assert worst.auc.low >= single.low
    assert worst.training_records == {}


def test_intervals_widen_when_records_come_in_groups():
    truth = np.repeat(RNG.integers(0, 2, 40), 10)
    scores = outcome("a", np.repeat(noisy(truth[::10], 0.5), 10))
    alone, _ = classification_leakage(sample(truth), None, [scores], identity=False)
    people = np.repeat(np.arange(40), 10)
    grouped, _ = classification_leakage(sample(truth, groups=people), None, [scores], identity=False)
    assert grouped.auc.high - grouped.auc.low > 2 * (alone.auc.high - alone.auc.low)


def test_top1_leads_for_identity():
    truth = RNG.integers(0, 5, 300)
    probabilities = np.full((300, 5), 0.1, dtype=np.float32)
    probabilities[np.arange(300), truth] = 0.6
    right = Outcome("right", "right()", probabilities, truth, 1.0, {}, 1)
    wrong = Outcome("wrong", "wrong()", probabilities, (truth + 1) % 5, 1.0, {}, 1)
    worst, attacks = classification_leakage(sample(truth, 5), None, [wrong, right], identity=True)
    assert worst.attack == "right"
    assert worst.top1.value == 1.0
    assert worst.auc is None
    assert attacks[1].top1.value == 0.0


def test_bayes_rule_serves_the_rare_class():
    prior = np.array([0.9, 0.1])
    probabilities = np.array([[0.85, 0.15], [0.95, 0.05]], dtype=np.float32)
    assert bayes_rule(probabilities, prior).tolist() == [1, 0]


def test_mean_over_tasks_uses_the_same_resamples():
    truth = RNG.integers(0, 2, 200)
    s = sample(truth)
    _, good, _ = task_scores(s, outcome("a", noisy(truth, 1.0)).probabilities, np.array([0.5, 0.5]))
    _, bad, _ = task_scores(s, outcome("b", noisy(truth, 0.1)).probabilities, np.array([0.5, 0.5]))
    mean = mean_score([s, s], [good, bad])
    assert mean.value == pytest.approx((good.value + bad.value) / 2)
    assert mean.low < mean.value < mean.high


def draw_pairs(identity, limit=500):
    return Pairs.draw(identity, limit=limit, resamples=200, confidence=0.95, seed=0, name="t")


def test_pairs_are_what_they_say_and_balanced():
    identity = np.repeat(np.arange(30), 4)
    pairs = draw_pairs(identity)
    assert np.array_equal(pairs.same, identity[pairs.first] == identity[pairs.second])
    assert (pairs.first != pairs.second).all()
    assert pairs.same.sum() == (~pairs.same).sum() == 180


def test_one_person_with_many_images_does_not_fill_the_pairs():
    identity = np.concatenate([np.zeros(200, int), np.repeat(np.arange(1, 101), 2)])
    pairs = draw_pairs(identity, limit=3000)
    assert (identity[pairs.first[pairs.same]] == 0).sum() == 45


def test_no_pairs_without_two_images_of_a_person_or_two_people():
    assert draw_pairs(np.arange(10)) is None
    assert draw_pairs(np.zeros(10, int)) is None


def test_verification_of_perfect_and_of_random_embeddings():
    identity = np.repeat(np.arange(40), 3)
    pairs = draw_pairs(identity)
    codes = RNG.standard_normal((40, 16)).astype(np.float32)
    assert pairs.score(pairs.curve(codes[identity])).value > 0.999
    chance = pairs.score(pairs.curve(RNG.standard_normal((120, 16)).astype(np.float32)))
    assert chance.low < 0.5 < chance.high
    both = [pairs.curve(codes[identity]), pairs.curve(codes[identity][::-1].copy())]
    assert pairs.worst(both).value == both[0].value


def agreeing(pairs, cells):
    """Cells of both ends, as a sorted list, of the pairs of one person and of the impostors."""
    ends = np.sort(np.stack([cells[pairs.first], cells[pairs.second]], 1), 1)
    return [sorted(map(tuple, ends[some].tolist())) for some in (pairs.same, ~pairs.same)]


def test_matched_impostors_agree_in_their_labels_as_the_pairs_of_one_person_do():
    identity = np.repeat(np.arange(60), 4)
    gender = np.repeat(RNG.integers(0, 2, 60), 4)
    cells = 2 * gender + RNG.integers(0, 2, 240)  # gender stays, a smile comes and goes
    random = draw_pairs(identity)
    matched = random.matched(cells, 0, "t")
    genuine, impostors = agreeing(matched, cells)
    assert genuine == impostors
    assert np.array_equal(matched.same, identity[matched.first] == identity[matched.second])
    assert agreeing(random, cells)[0] != agreeing(random, cells)[1]
    labels = np.eye(4, dtype=np.float32)[cells]
    assert random.score(random.curve(labels)).value > 0.6
    assert matched.score(matched.curve(labels)).value == 0.5


def test_who_is_matched_by_nobody_is_left_out():
    identity = np.repeat(np.arange(10), 2)
    cells = np.where(identity == 3, 1, 0)
    matched = draw_pairs(identity).matched(cells, 0, "t")
    assert not (identity[matched.first] == 3).any()
    assert matched.same.sum() == 9
    assert draw_pairs(identity).matched(identity, 0, "t") is None


def test_both_kinds_of_impostors_are_scored_and_the_matched_lead():
    identity = np.repeat(np.arange(60), 4)
    gender = np.repeat(np.arange(60) % 2, 4)
    pairs = draw_pairs(identity)
    both = {"verification_auc": pairs, "matched_verification_auc": pairs.matched(gender, 0, "t")}
    person = RNG.standard_normal((60, 4)).astype(np.float32)[identity]
    knows_gender = np.eye(2, dtype=np.float32)[gender]
    found = score_verification(both, {"gender": knows_gender, "person": person}, 240)
    assert found.attacks[0].attack == found.worst.attack == "person"
    told = found.attacks[1]
    assert told.verification_auc.value > 0.7
    assert told.matched_verification_auc.value == 0.5


def test_pictures_are_scored_on_the_unit_range_and_beside_the_mean_image():
    originals = RNG.integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    truth = originals.astype(np.float32) / 255
    noised = np.clip(truth + 0.1 * RNG.standard_normal(truth.shape).astype(np.float32), 0, 1)
    mean = truth.mean(0)

    def scores(guess):
        return image_scores(originals, guess, mean, np.arange(20), resamples=100, confidence=0.95, seed=0)

    exact, close = scores(truth), scores(noised)
    assert exact.ssim.value == pytest.approx(1, abs=1e-6)
    assert exact.psnr.value == 100
    error = ((noised - truth) ** 2).reshape(20, -1).mean(1)
    assert close.psnr.value == pytest.approx((-10 * np.log10(error)).mean(), abs=1e-3)
    assert close.mean_image_ssim.value < close.ssim.value < 1
