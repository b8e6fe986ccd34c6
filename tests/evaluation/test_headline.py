"""The one number an attribute is judged by: worst of test and training records, over all threat models."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from privhier.evaluation.excess import excess_of, headline_of
from privhier.evaluation.flat import headline_metrics, headline_tags, result_metrics
from privhier.evaluation.headline import ceiling_value, headline, leading_metric, worst_of
from privhier.evaluation.result import AttackScores, AttributeLeakage, Ceilings, Score, WorstAttack
from privhier.evaluation.scores import Outcome, Sample, score_attackers
from privhier.metrics.intervals import excess_interval
from privhier.report.comparison import comparison
from privhier.report.summary import summarize
from privhier.sweeps.search import objectives

RNG = np.random.default_rng(3)
APART = float(ndtr(0.6 * 2**0.5) - ndtr(0.25 * 2**0.5))
"""Of the AUCs of two unit normals 1.2 and 0.5 apart."""


def score(value, half=0.02, n=500):
    return Score(value=value, low=value - half, high=value + half, n=n)


def leakage(test, training, *, labels=None, **more):
    """An old result: scores, and no headline of its own."""
    attacks = [
        AttackScores(attack="mlp", repr="m", auc=score(test), training_records={"auc": score(0.4)}),
        AttackScores(attack="trees", repr="t", auc=score(0.4), training_records={"auc": score(training)}),
    ]
    worst = WorstAttack(attack="mlp", auc=score(test), training_records={"auc": score(training)})
    readers = []
    if labels is not None:
        readers = [
            AttackScores(
                attack="mlp@curious_cloud_labels",
                repr="m",
                threat_model="curious_cloud_labels",
                auc=score(labels),
            )
        ]
        more["worst_with_labels"] = WorstAttack(attack="mlp@curious_cloud_labels", auc=score(labels))
    return AttributeLeakage(
        classes=["0", "1"], worst=worst, attacks=attacks, attacks_with_labels=readers, majority=0.5, **more
    )


def test_the_training_record_row_is_the_headline_where_it_is_worse():
    top = headline(leakage(0.553, 0.605))
    assert (top.score.value, top.records, top.attack) == (0.605, "training", "trees")
    top = headline(leakage(0.62, 0.605))
    assert (top.score.value, top.records, top.attack) == (0.62, "test", "mlp")


def test_who_reads_task_labels_counts_and_no_ceiling_binds_it():
    ceiling = Ceilings(releases=1, auc=0.7, balanced_accuracy=0.65)
    top = headline(leakage(0.55, 0.6, labels=0.64, ceiling=ceiling))
    assert (top.score.value, top.threat_model) == (0.64, "curious_cloud_labels")
    assert ceiling_value(leakage(0.55, 0.6, labels=0.64, ceiling=ceiling), "auc") is None
    assert ceiling_value(leakage(0.55, 0.6, labels=0.58, ceiling=ceiling), "auc") == 0.7


def test_a_matched_verification_auc_leads_and_an_old_one_still_counts():
    both = WorstAttack(
        attack="metric",
        verification_auc=score(0.7),
        matched_verification_auc=score(0.6),
        training_records={"verification_auc": score(0.8), "matched_verification_auc": score(0.61)},
    )
    assert leading_metric(both) == "matched_verification_auc"
    found = AttributeLeakage(classes=[], worst=both, attacks=[], majority=0.5)
    assert headline(found).score.value == 0.61
    assert headline(found, "verification_auc").score.value == 0.8
    old = WorstAttack(attack="metric", verification_auc=score(0.7))
    found = AttributeLeakage(classes=[], worst=old, attacks=[], majority=0.5)
    assert headline(found).metric == "verification_auc"
    assert worst_of(both, "verification_auc").value == 0.8
    assert worst_of(None, "auc") is None


def sample(n, name):
    truth = RNG.integers(0, 2, n)
    return Sample.draw(truth, 2, np.arange(n), resamples=200, confidence=0.95, seed=0, name=name)


def told(name, truth, strength):
    """An attacker who knows ``strength`` of the truth ``(n,)``, a number or one for each record."""
    p = 1 / (1 + np.exp(-(strength * (2 * truth - 1) + RNG.standard_normal(len(truth)))))
    probabilities = np.stack([1 - p, p], axis=1).astype(np.float32)
    return Outcome(name, name, probabilities, probabilities.argmax(1), 0.5, {}, 1)


def test_the_scored_headline_takes_its_interval_over_all_that_compete():
    test, training = sample(300, "victims"), sample(200, "training")
    truth = np.concatenate([test.truth, training.truth])
    strength = np.where(np.arange(500) < 300, 0.2, 0.9)
    blind = score_attackers(
        test, training, [told("a", truth, strength), told("b", truth, 0.1)], identity=False
    )
    readers = score_attackers(test, training, [told("a@labels", truth, 0.2)], identity=False)
    floor = score_attackers(test, training, [told("table", truth, 0.3)], identity=False)
    top = headline_of([blind, readers], {"a": "curious_cloud", "a@labels": "x"}, floor)
    assert (top.records, top.attack, top.threat_model) == ("training", "a", "curious_cloud")
    assert top.score.value == blind.worst.training_records["auc"].value
    assert top.score.n == 200
    assert top.floor == floor.worst.training_records["auc"]
    assert top.excess.value == pytest.approx(top.score.value - top.floor.value)
    curves = [*blind.curves.values(), *readers.curves.values()]
    expected = excess_interval(
        np.array([c["training/auc"].value for c in curves]),
        np.stack([c["training/auc"].resampled for c in curves]),
        np.array([floor.curves["table"]["training/auc"].value]),
        floor.curves["table"]["training/auc"].resampled[None],
    )
    assert (top.excess.low, top.excess.high) == (expected.low, expected.high)


def test_excess_covers_the_true_difference_in_simulation():
    """Two attackers of known strength on the same records: 95 % intervals miss in about 5 % of 200 draws."""
    rng, missed = np.random.default_rng(0), 0
    areas = []
    for draw in range(200):
        truth = rng.integers(0, 2, 240)
        shared = rng.standard_normal(240)
        scores = [s * (2 * truth - 1) + 0.6 * shared + 0.8 * rng.standard_normal(240) for s in (0.6, 0.25)]
        drawn = Sample.draw(truth, 2, np.arange(240), resamples=100, confidence=0.95, seed=draw, name="t")
        both = []
        for number, s in enumerate(scores):
            p = 1 / (1 + np.exp(-s))
            both_columns = np.stack([1 - p, p], axis=1).astype(np.float32)
            out = Outcome(str(number), "", both_columns, (p > 0.5).astype(np.int64), 0.5, {}, 1)
            both.append(score_attackers(drawn, None, [out], identity=False))
        found = excess_of(*both).auc
        areas.append(found.value)
        missed += not found.low <= APART <= found.high
    assert missed <= 22
    assert np.mean(areas) == pytest.approx(APART, abs=0.01)


def test_every_place_names_the_same_number(result):
    """Training records are worse here: page, command line, MLflow, comparison and search all say so."""
    name = next(iter(result.leakage))
    found = result.leakage[name]
    training = {**found.worst.training_records, "auc": score(0.777)}
    changed = found.model_copy(
        update={"worst": found.worst.model_copy(update={"training_records": training})}
    )
    result = result.model_copy(update={"leakage": {**result.leakage, name: changed}})
    assert headline(changed).score.value == 0.777
    assert headline_metrics(changed)["headline/score"] == 0.777
    assert 0.777 in result_metrics(result).values()
    assert "training" in headline_tags(result).values()
    assert any(line.startswith(f"leakage {name}: AUC 0.777") for line in summarize(result))
    assert objectives([result])[1] == 0.777


def test_a_comparison_shows_the_headline_with_its_floor(result, config):
    name = next(iter(result.leakage))
    top = headline(result.leakage[name])
    beside = top.model_copy(update={"floor": score(0.51), "excess": score(0.03)})
    changed = result.leakage[name].model_copy(update={"headline": beside})
    result = result.model_copy(update={"leakage": {**result.leakage, name: changed}})
    row = comparison([(config, result)], ["a"]).loc["a"]
    assert row[f"leakage/{name}"] == top.score.value
    assert row[f"leakage/{name}/records"] == top.records
    assert row[f"leakage/{name}/floor"] == 0.51
    assert row[f"leakage/{name}/excess_low"] == pytest.approx(0.01)
