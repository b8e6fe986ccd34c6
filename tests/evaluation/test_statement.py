"""What a run allows one to say, and the numbers that a page of many runs is read by."""

from __future__ import annotations

import pytest

from privhier.evaluation.flat import top_metrics
from privhier.evaluation.headline import headline
from privhier.evaluation.statement import may_say
from privhier.privacy.guarantees import OWN_RELEASES
from privhier.privacy.shown import claim


def test_three_sentences_with_the_numbers_of_the_result(result):
    utility, leakage, guarantee = may_say(result)
    task, scores = next(iter(result.utility.items()))
    assert f"{task} with AUC {scores.cloud.auc.value:.3f}" in utility
    for name, one in result.leakage.items():
        top = headline(one)
        assert f"{top.score.value:.3f}" in leakage
        assert name in leakage
        assert top.attack in leakage
    row = next(one for one in result.guarantees if one.name == OWN_RELEASES)
    assert f"epsilon of {claim(row.epsilon)}" in guarantee


def test_without_a_certificate_it_is_no_proof(result):
    bare = {name: one.model_copy(update={"certified": None}) for name, one in result.leakage.items()}
    said = may_say(result.model_copy(update={"leakage": bare}))[1]
    assert said.endswith("no proof about others.")
    assert "no attacker at all" not in said


def test_a_loud_warning_forbids_every_quote(result):
    loud = "NOT LEARNED: task smiling at the cloud does no better than guessing: AUC [0.4, 0.6]"
    utility, leakage, _ = may_say(result.model_copy(update={"warnings": [loud]}))
    assert utility.startswith("Nothing may be quoted of this run before its warnings are mended: NOT LEARNED")
    assert leakage == "What its attackers found says nothing."


def test_without_an_epsilon_nothing_is_claimed(result):
    rows = [
        one.model_copy(update={"epsilon": None, "delta": None, "allows": None}) for one in result.guarantees
    ]
    bare = result.model_copy(update={"guarantees": rows})
    assert may_say(bare)[2].startswith("No differential-privacy guarantee covers")
    assert "epsilon" not in top_metrics(bare)


def test_the_metrics_at_the_top_are_the_headlines(result):
    found = top_metrics(result)
    assert found["utility"] == result.utility_mean.auc.value
    tops = [headline(one) for one in result.leakage.values()]
    areas = [top.score.value for top in tops if top.metric != "top1"]
    assert found["leakage"] == pytest.approx(max(areas))
    assert set(found) <= {"utility", "leakage", "excess", "certified", "epsilon"}


def test_a_secret_without_a_certificate_leaves_the_run_without_one(result):
    bare = {name: one.model_copy(update={"certified": None}) for name, one in result.leakage.items()}
    assert "certified" not in top_metrics(result.model_copy(update={"leakage": bare}))


def test_a_leakage_below_guessing_is_no_better_than_guessing_in_a_table_of_runs(result):
    name, one = next(iter(result.leakage.items()))
    score = one.worst.auc.model_copy(update={"value": 0.414, "low": 0.39, "high": 0.44})
    worst = one.worst.model_copy(update={"auc": score, "training_records": {}})
    lone = result.model_copy(
        update={"leakage": {name: one.model_copy(update={"worst": worst, "attacks": []})}}
    )
    assert top_metrics(lone)["leakage"] == 0.5
