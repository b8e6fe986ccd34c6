"""A network that learned nothing says so: in the result, on the command line, in the report and in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from privhier.evaluation.flat import result_tags
from privhier.evaluation.result import Result, Score, TaskScores, TaskUtility
from privhier.evaluation.warnings import loud, score_warnings
from privhier.report.summary import summarize


def score(low: float) -> Score:
    return Score(value=max(low, low + 0.02), low=low, high=low + 0.1, n=300)


def scores(auc: float, accuracy: float) -> TaskScores:
    return TaskScores(auc=score(auc), balanced_accuracy=score(accuracy))


def task(cloud: tuple[float, float], edge: tuple[float, float], classes: int = 2) -> TaskUtility:
    names = [str(number) for number in range(classes)]
    return TaskUtility(classes=names, cloud=scores(*cloud), edge_exit=scores(*edge), majority=0.6)


GOOD = (0.7, 0.65)


@pytest.mark.parametrize(
    ("utility", "places"),
    [
        (task(GOOD, GOOD), []),
        (task((0.5, 0.65), GOOD), ["cloud"]),
        (task((0.501, 0.501), (0.501, 0.501)), []),
        (task(GOOD, (0.45, 0.6)), ["edge exit"]),
        (task((0.6, 0.5), GOOD), ["cloud"]),
        (task((0.49, 0.45), (0.49, 0.45)), ["cloud", "edge exit"]),
        (task((0.6, 0.26), (0.6, 0.25), classes=4), ["edge exit"]),
        (task((0.6, 0.3), (0.6, 0.3), classes=4), []),
    ],
)
def test_what_cannot_be_told_from_guessing_is_named(utility, places):
    found = score_warnings({"smiling": utility}, {})
    assert len(found) == len(places)
    for warning, place in zip(found, places, strict=True):
        assert f"task smiling at the {place} does no better than guessing" in warning
    assert loud(["7 files were skipped", *found]) == found


def test_every_task_and_reference_is_looked_at():
    bad, good = task((0.4, 0.4), GOOD), task(GOOD, GOOD)
    found = score_warnings({"a": good, "b": bad}, {"open": {"a": bad, "b": good}})
    assert ["task b at the cloud" in text for text in found] == [True, False]
    assert "task a at the cloud of the reference open" in found[1]
    assert loud(found) == found[:1]  # a reference that failed leaves the run's own numbers to be read


def test_only_scores_that_reach_down_to_guessing_are_given():
    (by_accuracy,) = score_warnings({"a": task((0.6, 0.5), GOOD)}, {})
    assert "balanced accuracy [0.500, 0.600] where guessing has 0.500" in by_accuracy
    assert "AUC" not in by_accuracy
    (by_both,) = score_warnings({"a": task((0.3, 0.2), GOOD, classes=4)}, {})
    assert "AUC [0.300, 0.400] where guessing has 0.500 and balanced accuracy [0.200, 0.300]" in by_both


@pytest.fixture
def collapsed(result: Result) -> Result:
    bad = task((0.47, 0.46), (0.48, 0.47))
    found = score_warnings({"gender": bad}, {})
    return result.model_copy(update={"warnings": [*found, "7 files were skipped"]})


@pytest.fixture
def result() -> Result:
    return Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")


def test_the_command_line_ends_with_it(collapsed):
    lines = list(summarize(collapsed))
    assert [line.startswith("WARNING: NOT LEARNED") for line in lines[-3:]] == [False, True, True]
    assert lines[-3] == "warning: 7 files were skipped"


def test_a_tracker_gets_a_tag_where_there_is_one(result, collapsed):
    assert "warning" not in result_tags(result)
    assert result_tags(collapsed)["warning"] == "\n".join(collapsed.warnings[:2])
    assert result_tags(collapsed)["worst_attack/race_eq_0"] == "mlp"
