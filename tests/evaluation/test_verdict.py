"""Why a run's leakage may say nothing: one plain sentence each, with what to do."""

from __future__ import annotations

import pytest

from privhier.evaluation.result import Result, Score
from privhier.evaluation.statement import may_say
from privhier.evaluation.verdict import beside_verdicts, failing_on_images, not_learned, verdicts
from privhier.report.summary import summarize

SECRET = "race==0"


def score(value: float, half: float = 0.02) -> Score:
    return Score(value=value, low=value - half, high=value + half, n=1000)


def learned(result: Result, **places: Score) -> Result:
    """The result with other scores of the cloud at its first task."""
    task, utility = next(iter(result.utility.items()))
    changed = utility.model_copy(update={"cloud": utility.cloud.model_copy(update=places)})
    return result.model_copy(update={"utility": result.utility | {task: changed}})


def raw(result: Result, value: Score | None) -> Result:
    """The result with another score of its first secret's attackers on the raw images."""
    leakage = result.leakage[SECRET]
    on_images = None if value is None else leakage.raw_image_attack.model_copy(update={"auc": value})
    changed = leakage.model_copy(update={"raw_image_attack": on_images})
    return result.model_copy(update={"leakage": result.leakage | {SECRET: changed}})


def test_a_run_that_learned_and_was_attacked_well_has_none(result):
    assert verdicts(result) == []
    assert not any(line.startswith("verdict:") for line in summarize(result))


@pytest.mark.parametrize(("place", "name"), [("auc", "AUC"), ("balanced_accuracy", "balanced accuracy")])
def test_a_task_at_guessing_is_said_with_what_to_do(result, place, name):
    bad = learned(result, **{place: score(0.51)})
    (found,) = verdicts(bad)
    assert found.what.startswith("The task was not learned: the cloud does no better than guessing at gender")
    assert f"({name} 0.510 [0.490, 0.530])" in found.what  # the score that reaches down to guessing
    assert "edge.warmup_epochs" in found.remedy
    utility, leakage, _ = may_say(bad)
    assert utility == "Nothing may be quoted of this run: its task was not learned."
    assert leakage == "What its attackers found says nothing."
    assert any(line.startswith("verdict: The task was not learned") for line in summarize(bad))


def test_a_task_of_several_classes_is_held_against_its_own_guessing(result):
    """One of four classes is guessed in a quarter of the cases: 0.411 is better, 0.24 is not."""
    many = result.utility["bin(age, 20, 40, 60)"]
    assert list(not_learned(result)) == []
    low = many.cloud.model_copy(update={"balanced_accuracy": score(0.26)})
    changed = {"bin(age, 20, 40, 60)": many.model_copy(update={"cloud": low})}
    assert list(not_learned(result.model_copy(update={"utility": result.utility | changed}))) == list(changed)


@pytest.mark.parametrize(("value", "fails"), [(score(0.515), True), (score(0.53), False), (None, False)])
def test_attackers_who_fail_on_the_raw_images_are_said(result, value, fails):
    bad = raw(result, value)
    assert list(failing_on_images(bad)) == [SECRET] * fails
    assert len(verdicts(bad)) == int(fails)
    assert (f"at {SECRET} says nothing, since they fail on the raw images" in may_say(bad)[1]) is fails
    if fails:
        assert "attacks.auxiliary" in verdicts(bad)[0].remedy
        assert "AUC 0.515 [0.495, 0.535]" in verdicts(bad)[0].what
        assert "at race (" in may_say(bad)[1]  # what they found at another secret still says something


def test_a_secret_found_nowhere_leaves_its_certificate(result):
    bad = raw(result, score(0.5))
    certified = {"auc": 0.61, "confidence": 0.95, "n": 900, "people": 900}
    leakage = bad.leakage[SECRET].model_dump() | {"certified": certified}
    proven = Result.model_validate(bad.model_dump(by_alias=True) | {"leakage": {SECRET: leakage}})
    assert "what is certified holds all the same" in verdicts(proven)[0].what
    said = may_say(proven)[1]
    assert said.startswith("What the attackers found at race==0 says nothing")
    assert "no attacker at all can exceed 0.61" in said


def test_a_certificate_of_one_is_not_said(result):
    certified = {"auc": 0.9999, "confidence": 0.95, "n": 900, "people": 900}
    leakage = result.leakage[SECRET].model_dump() | {"certified": certified}
    bare = Result.model_validate(result.model_dump(by_alias=True) | {"leakage": {SECRET: leakage}})
    assert "no attacker at all" not in may_say(bare)[1]
    assert any("no bound below 1" in line for line in summarize(bare))


def test_a_loud_warning_that_a_verdict_repeats_is_told_once(result):
    bad = learned(result, auc=score(0.5))
    said = "NOT LEARNED: task gender at the {} does no better than guessing: AUC [0.4, 0.6]"
    warnings = [
        said.format("cloud"),
        said.format("edge exit"),
        said.format("cloud of the reference open"),
        "x",
    ]
    assert beside_verdicts(bad.model_copy(update={"warnings": warnings})) == warnings[1:3]
    assert beside_verdicts(result.model_copy(update={"warnings": warnings})) == warnings[:3]
