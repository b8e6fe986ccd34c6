from __future__ import annotations

import numpy as np
import pytest

from privhier.evaluation.by_group import GroupTally
from privhier.evaluation.scores import Sample


def sample(truth, n_classes=2, seed=0):
    truth = np.array(truth, dtype=np.int64)
    return Sample.draw(
        truth, n_classes, np.arange(len(truth)), resamples=200, confidence=0.95, seed=seed, name="test"
    )


def test_accuracy_within_each_class_and_recall_of_each_class():
    race = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    smiling = sample([0, 0, 1, 1, 0, 0, 1, 1])
    tally = GroupTally()
    tally.task("smiling", smiling, np.array([0, 0, 1, 1, 0, 1, 1, 0]))
    # Five victims; the two rows after them are training records, and are no business of this.
    tally.attack("race", sample([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1, 0, 0]))
    found = tally.scores({"race": (race, ("white", "other"))})["race"]
    assert {name: group.n for name, group in found.items()} == {"white": 4, "other": 4}
    assert found["white"].task_accuracy["smiling"].value == 1.0
    assert found["other"].task_accuracy["smiling"].value == 0.5
    assert found["other"].task_accuracy["smiling"].n == 4
    assert found["white"].attack_recall is not None
    assert found["white"].attack_recall.value == pytest.approx(2 / 3)
    assert found["other"].attack_recall is not None
    assert (found["other"].attack_recall.value, found["other"].attack_recall.n) == (1.0, 2)


def test_a_class_without_records_or_victims_has_no_scores():
    tally = GroupTally()
    tally.task("smiling", sample([0, 1]), np.array([0, 1]))
    tally.attack("race", sample([0, 0], 2), np.array([0, 0]))
    found = tally.scores({"race": (np.array([0, 0]), ("white", "other"))})["race"]
    assert found["other"].n == 0
    assert found["other"].task_accuracy == {}
    assert found["other"].attack_recall is None


def test_a_task_class_missing_in_a_group_is_left_out_of_its_mean():
    tally = GroupTally()
    tally.task("age", sample([0, 0, 1, 2], 3), np.array([0, 1, 1, 2]))
    found = tally.scores({"race": (np.array([0, 0, 0, 1]), ("white", "other"))})["race"]
    assert found["white"].task_accuracy["age"].value == pytest.approx((0.5 + 1.0) / 2)
    assert found["white"].attack_recall is None


def test_intervals_hold_the_value_and_are_reproducible():
    rng = np.random.default_rng(0)
    truth, race = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    predictions = np.where(rng.random(300) < 0.8, truth, 1 - truth)
    answers = []
    for _ in range(2):
        tally = GroupTally()
        tally.task("smiling", sample(truth), predictions)
        answers.append(tally.scores({"race": (race, ("a", "b"))}))
    assert answers[0] == answers[1]
    score = answers[0]["race"]["a"].task_accuracy["smiling"]
    assert score.low < score.value < score.high
    assert score.high - score.low < 0.25
