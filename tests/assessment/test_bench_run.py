"""The bench on a small run: threat models, who is the headline, curves, populations, what is left out."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.assessment.properties import populations
from privhier.errors import ConfigError
from privhier.evaluation.result import Result
from privhier.session import open_session, reopen_session, run

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
MODELS = ["curious_cloud", "curious_cloud_labels", "eavesdropper", "white_box"]


def small(**changes):
    chosen = {
        "release": {"mechanism": "gaussian", "sigma": 0.1},
        "privacy": {"label_epsilon": 1.0},
        "attacks": {
            "threat_models": MODELS,
            "draws": 2,
            "auxiliary": 80,
            "victims": 80,
            "training_victims": 60,
            "auxiliary_sizes": [30, 60],
            "attribute": [
                {"name": "logistic_regression", "options": {"trials": 0}},
                {"name": "fine_tune", "options": {"epochs": 2, "teacher_epochs": 0}},
            ],
            "property": ["mixture"],
            "reconstruction": [{"name": "decoder", "options": {"epochs": 1}}],
            "reconstruction_victims": 12,
        },
        "evaluation": {"bootstrap": 100},
        "tracking": {"enabled": False},
    }
    return small_config("bench", images=400, batch=64, **(chosen | changes))


@pytest.fixture(scope="module")
def benched(tmp_path_factory) -> tuple[Path, Result]:
    threads = torch.get_num_threads()
    out = tmp_path_factory.mktemp("bench") / "run"
    result = run(open_session(small(), out), command="test")
    torch.set_num_threads(threads)
    return out, result


def test_every_threat_model_runs_what_fits_it(benched):
    leakage = benched[1].leakage["male"]
    found = {attack.attack: attack.threat_model for attack in leakage.attacks}
    assert found == {
        "logistic_regression": "curious_cloud",
        "logistic_regression@eavesdropper": "eavesdropper",
        "fine_tune@white_box": "white_box",
    }
    assert set(benched[1].reconstruction) == {"decoder", "decoder@eavesdropper"}


def test_the_worst_reads_no_labels_and_the_headline_is_the_worst_of_all(benched):
    leakage = benched[1].leakage["male"]
    assert leakage.worst.attack == max(leakage.attacks, key=lambda a: a.auc.value).attack
    everyone = [*leakage.attacks, *leakage.attacks_with_labels]
    scores = {(a.attack, "test"): a.auc for a in everyone}
    scores |= {(a.attack, "training"): a.training_records["auc"] for a in everyone}
    top = leakage.headline
    assert (top.attack, top.records) == max(scores, key=lambda key: scores[key].value)
    assert top.score.value == max(score.value for score in scores.values())
    assert top.excess.value == pytest.approx(top.score.value - top.floor.value)
    assert [a.threat_model for a in leakage.attacks_with_labels] == ["curious_cloud_labels"]
    assert leakage.worst_with_labels.attack == "logistic_regression@curious_cloud_labels"


def test_the_curve_grows_to_the_whole_auxiliary_set(benched):
    points = benched[1].leakage["male"].by_auxiliary
    sizes = [point.auxiliary for point in points]
    assert sizes == sorted(sizes)
    assert 30 <= sizes[0] < 60 <= sizes[1] < sizes[2]
    whole = next(a for a in benched[1].leakage["male"].attacks if a.attack == "logistic_regression")
    assert points[-1].worst.auc == whole.auc


def test_randomized_labels_and_the_make_up_are_attacked(benched):
    result = benched[1]
    assert result.label_inference["smiling"].worst.auc.n == 60
    (shares,) = result.property_inference["male"]
    assert shares.populations[0].n == 60
    assert len(shares.populations) == 10
    for part in shares.populations:
        assert sum(part.truth) == pytest.approx(1)
        assert sum(part.estimate) == pytest.approx(1, abs=1e-5)


def test_the_report_shows_all_of_it(benched):
    page = (benched[0] / "report.html").read_text()
    for words in (
        "fine_tune@white_box",
        "decoder@eavesdropper",
        "Share of every class of male",
        "True label",
    ):
        assert words in page
    assert (benched[0] / "figures" / "auxiliary_0.svg").exists()
    assert (benched[0] / "figures" / "cost_0.svg").exists()


def test_with_one_release_the_eavesdropper_would_only_repeat_the_cloud(tmp_path):
    threads = torch.get_num_threads()
    attacks = small().attacks.model_dump() | {
        "threat_models": ["curious_cloud", "eavesdropper"],
        "auxiliary_sizes": [],
        "property": [],
        "reconstruction": [],
        "attribute": [{"name": "logistic_regression", "options": {"trials": 0}}],
    }
    config = small(attacks=attacks, schedule={"joint_epochs": 1})
    result = run(open_session(config, tmp_path / "run"), command="test")
    torch.set_num_threads(threads)
    assert [attack.attack for attack in result.leakage["male"].attacks] == ["logistic_regression"]
    assert [(row.name, row.same_as) for row in result.threat_models] == [
        ("curious_cloud", None),
        ("eavesdropper", "curious_cloud"),
    ]


def test_pictures_are_drawn_of_victims_at_random_and_fewer_are_among_more(benched):
    session = reopen_session(benched[0])
    order = session.victims.pictured
    assert sorted(order.tolist()) == list(range(len(session.victims.test)))
    assert order.tolist() != sorted(order.tolist())
    assert (order == reopen_session(benched[0]).victims.pictured).all()


@pytest.mark.parametrize("models", [["eavesdropper", "white_box"], ["white_box"]], ids=str)
def test_attackers_without_weights_always_run_somewhere(tmp_path, models):
    threads = torch.get_num_threads()
    attacks = small().attacks.model_dump() | {
        "threat_models": models,
        "auxiliary_sizes": [],
        "property": [],
        "reconstruction": [],
        "attribute": [{"name": "logistic_regression", "options": {"trials": 0}}],
        "raw_image": False,
    }
    config = small(attacks=attacks, schedule={"joint_epochs": 1})
    result = run(open_session(config, tmp_path / "run"), command="test")
    torch.set_num_threads(threads)
    assert [a.attack for a in result.leakage["male"].attacks] == [f"logistic_regression@{models[0]}"]


def test_what_the_bench_cannot_use_is_refused_before_training(tmp_path):
    for changes, key in (
        ({"evaluation": {"lpips_weights": "nowhere.pth"}}, "evaluation.lpips_weights"),
        ({"attacks": {"embedders": [{"name": "onnx", "options": {"path": "nowhere.onnx"}}]}}, "onnx"),
        ({"attacks": {"membership": ["lyra"]}}, "attacks.membership"),
        ({"attacks": {"attribute": ["mlp", "decensor"]}}, "decensor.*needs the edge's weights"),
    ):
        with pytest.raises(ConfigError, match=key):
            open_session(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_populations_have_the_make_up_they_are_drawn_for():
    labels = (np.arange(1000) < 200).astype(np.int64)
    sets = populations(labels, 2, np.random.default_rng(0))
    assert len(sets[0]) == 1000
    shares = [labels[rows].mean() for rows in sets[1:]]
    assert shares == pytest.approx(np.linspace(0.1, 0.9, 9), abs=0.02)
    assert all(len(set(rows.tolist())) == len(rows) for rows in sets)
    three = populations(np.repeat([0, 2], 30).astype(np.int64), 3, np.random.default_rng(0))
    assert all(len(rows) for rows in three)
