"""What the bench adds to a report: the auxiliary curve, cost, property and label inference."""

from __future__ import annotations

import pytest

from privhier.evaluation.flat import clean_name, result_metrics
from privhier.evaluation.result import (
    AuxiliaryPoint,
    PopulationShares,
    PropertyInference,
    Result,
    Score,
    WorstAttack,
)
from privhier.report.bench_figures import attack_seconds, draw_bench
from privhier.report.page import render
from privhier.report.summary import summarize


def score(value: float) -> Score:
    return Score(value=value, low=value - 0.02, high=value + 0.02, n=100)


@pytest.fixture
def benched(result: Result) -> Result:
    """The example's first attribute with a curve, label readers, and estimates of its make-up."""
    name, leakage = next(iter(result.leakage.items()))
    points = [
        AuxiliaryPoint(auxiliary=n, draws=4, worst=WorstAttack(attack="mlp", auc=score(value)))
        for n, value in ((100, 0.6), (1000, 0.7))
    ]
    readers = WorstAttack(attack="mlp@curious_cloud_labels", auc=score(0.77))
    changed = leakage.model_copy(update={"by_auxiliary": points, "worst_with_labels": readers})
    shares = PropertyInference(
        attack="mixture",
        repr="MixtureAttack()",
        classes=["no", "yes"],
        error=score(0.031),
        auxiliary_error=0.27,
        populations=[PopulationShares(n=90, truth=[0.5, 0.5], estimate=[0.47, 0.53])],
    )
    return result.model_copy(
        update={
            "leakage": result.leakage | {name: changed},
            "property_inference": {name: [shares]},
            "label_inference": {"smiling": changed},
        }
    )


def test_the_curve_is_drawn_only_where_there_are_sizes(result, benched):
    assert "auxiliary_0" not in draw_bench(result)
    drawn = draw_bench(benched)
    assert "auxiliary_0" in drawn
    assert "auxiliary_1" not in drawn
    assert drawn["auxiliary_0"].svg == draw_bench(benched)["auxiliary_0"].svg


def test_the_page_says_what_the_bench_found(benched, config):
    page = render(benched, config, drawings={}, reconstructions=[], command="x")
    assert "0.770 [0.750, 0.790]" in page
    assert "no ceiling binds this score" in page
    assert "0.031 [0.011, 0.051]" in page
    assert "has 0.270" in page
    assert "True label of smiling" in page


def test_trackers_and_the_summary_get_it_too(benched):
    name = clean_name(next(iter(benched.leakage)))
    metrics = result_metrics(benched)
    assert metrics[f"property/{name}/mixture/error"] == 0.031
    assert metrics[f"leakage/{name}/with_task_labels/auc"] == 0.77
    assert "label_inference/smiling/worst/auc" in metrics
    lines = "\n".join(summarize(benched))
    assert "mixture errs by 0.031" in lines
    assert "task label known: mlp@curious_cloud_labels, AUC 0.770" in lines


def test_seconds_are_found_by_threat_model(result):
    leakage = next(iter(result.leakage.values()))
    attack = leakage.attacks[0].model_copy(
        update={"attack": "mlp@eavesdropper", "threat_model": "eavesdropper"}
    )
    timing = {"attack/eavesdropper/male/mlp": 3.0, "attack/curious_cloud/male/mlp": 5.0}
    assert attack_seconds(timing, "male", attack) == 3.0
    assert attack_seconds({}, "male", attack) is None
