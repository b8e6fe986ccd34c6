"""Whole runs on letters, from Python: what is given, what is claimed, what is compared."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import privhier as ph
from privhier.errors import ConfigError

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
ANSWERED = {"mechanism": "randomized_response", "target_epsilon": 6.0}
WHITE_BOX = [
    "curious_cloud", "curious_cloud_labels", "eavesdropper", "white_box", "malicious_cloud",
]  # fmt: skip


def data(name: str, bottleneck: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    base = {
        "model": {"bottleneck": {"kind": "letters", "size": 1, "letters": 6, **(bottleneck or {})}},
        "release": ANSWERED,
        "attacks": {
            "draws": 2, "auxiliary": 40, "victims": 24, "training_victims": 12,
            "attribute": ["table", "logistic_regression"], "verification": [], "reconstruction": [],
            "raw_image": False, "threat_models": ["curious_cloud"],
        },
        "evaluation": {"bootstrap": 100, "references": []},
        "tracking": {"enabled": False},
    }  # fmt: skip
    plain: dict[str, Any] = SMALL["small"](name, images=160, size=16, **SMALL["merged"](base, changes))
    return plain


def run(tmp: Path, name: str, bottleneck: dict[str, Any] | None = None, **changes: Any) -> ph.FinishedRun:
    return ph.run(data(name, bottleneck, **changes), out=tmp / name, progress=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> ph.FinishedRun:
    return run(tmp_path_factory.mktemp("letters"), "done", {"groups": 2})


def test_one_more_release_is_letters(done):
    images = np.array(done.faces.images[:5])
    first, again = done.release(images), done.release(images)
    assert (first.dtype, first.shape) == (np.int64, (5, 2))
    assert np.isin(first, np.arange(6)).all()
    assert done.result.release["letters"] == 6
    edge = ph.load_edge(done.folder)
    released = edge(torch.from_numpy(images))
    assert released.payload().dtype == np.int64
    assert edge.edge.task_logits(released.values)[0].shape == (5, 2)
    assert edge.edge.read(torch.from_numpy(again)).shape == (5, 2)


def test_a_view_holds_letters_one_hot_and_the_table_reads_them(done):
    for name, releases in (("curious_cloud", 2), ("eavesdropper", 1), ("white_box", 2)):
        view = done.view(name)
        assert view.releases.shape == (36, releases, 12)
        assert (view.alphabet.letters, view.alphabet.groups) == (6, 2)
        assert (view.releases.reshape(36, releases, 2, 6).sum(axis=-1) == 1).all()
    scores = done.attack(ph.attacks.TableAttack(target="male"), progress=False)
    assert scores.auc.n == 24
    assert scores.training_records["auc"].n == 12
    with pytest.raises(ConfigError, match="no letters"):
        done.attack(ph.attacks.TableAttack(target="male"), view="raw_image", progress=False)


def test_what_letters_cost_is_told_apart_from_their_messages(done):
    up = done.result.uplink
    assert up.payload_bytes_per_record == 2 * 3 / 8
    assert 4 + 6 / 8 < up.bytes_per_record < 30
    assert "6 bits of letters a release" in done.summary()
    assert "6 bits of letters a release" in done.report.read_text()


def test_runs_of_other_letters_are_compared(tmp_path, done):
    other = run(tmp_path, "other", {"groups": 2, "letters": 4}, release={"target_epsilon": 2.0})
    table = ph.compare([done, other], every=True)
    assert table["model.bottleneck.letters"].tolist() == [6, 4]
    assert table["payload_bytes_per_record"].tolist() == [6 / 8, 4 / 8]
    assert table["uplink/payload_bytes_per_record"].tolist() == [6 / 8, 4 / 8]
    assert (table["epsilon"] <= [6.0, 2.0]).all()
    assert (table["delta"] == 0).all()
    assert table.loc["done", "allows"] > table.loc["other", "allows"] > 0.5
    assert table["leakage/male/certified"].between(0.5, 1).all()


@pytest.mark.slow
def test_a_sweep_over_letters_and_epsilon_is_compared(tmp_path):
    file = {
        "name": "letters",
        "config": data("point"),
        "axes": [
            {"key": "model.bottleneck.letters", "values": [2, 8]},
            {"key": "release.target_epsilon", "values": [4.0, 8.0]},
        ],
        "seeds": [0],
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(file))
    swept = ph.sweep(tmp_path / "sweep.yaml", out=tmp_path / "out", workers=1, progress=False)
    assert (swept.summary.done, swept.summary.failed) == (4, [])
    table = swept.table()
    assert sorted(table["model.bottleneck.letters"]) == [2, 2, 8, 8]
    assert sorted(table["payload_bytes_per_record"]) == [1 / 8, 1 / 8, 3 / 8, 3 / 8]
    assert (table["epsilon"] <= table["release.target_epsilon"]).all()
    assert swept.report is not None


EVERY_ATTACK = {
    "attribute": [
        "table", "logistic_regression", "gradient_boosting", "nearest_neighbors", "rbf_kernel", "averaging",
        {"name": "mlp", "options": {"epochs": 2}}, {"name": "fine_tune", "options": {"epochs": 1}},
        {"name": "decensor", "options": {"epochs": 1}},
    ],
    "reconstruction": [
        {"name": "decoder", "options": {"epochs": 1}},
        {"name": "substitute", "options": {"steps": 2}},
        {"name": "inversion", "options": {"steps": 2}},
        {"name": "deep_prior", "options": {"steps": 2, "width": 4}},
        {"name": "generative", "options": {"epochs": 1, "steps": 2, "latent": 8, "width": 4}},
    ],
    "reconstruction_victims": 8,
    "optimization_victims": 8,
    "threat_models": WHITE_BOX,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "every attack and threat model": {
        "bottleneck": {"size": 2, "groups": 2}, "attacks": EVERY_ATTACK,
        "privacy": {"noise_source": "system"},
    },
    "references and labels": {
        "evaluation": {"references": ["open", "open_wide"]}, "privacy": {"label_epsilon": 3.0},
        "dataset": {"task": ["smiling", "glasses"], "sensitive": ["male", "hat"]},
    },
    "unknown people": {
        "dataset": {"sensitive": ["identity"]},
        "attacks": {"verification": [{"name": "metric", "options": {"epochs": 1}}]},
    },
    "known people": {
        "dataset": {
            "sensitive": ["identity"], "identity_protocol": "known_people", "options": {"identities": 12},
        },
        "attacks": {"auxiliary": 60},
    },
    "DP-SGD": {
        "bottleneck": {"groups": 2}, "edge": {"dp_sgd": {"noise_multiplier": 20.0}},
    },
    "more letters than records": {
        "bottleneck": {"letters": 4096, "size": 2}, "release": {"mechanism": "none", "target_epsilon": None},
        "attacks": {"property": ["mixture"]},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_everything_else_runs_on_letters(tmp_path, name):
    chosen = dict(RUNS[name])
    found = run(tmp_path, name.replace(" ", "_"), chosen.pop("bottleneck", None), **chosen).result
    own = next(row for row in found.guarantees if row.name == "own releases of one record")
    if chosen.get("release", ANSWERED)["mechanism"] == "none":
        assert own.epsilon is None
    else:
        assert own.epsilon is not None
        assert (own.delta, 0 < own.epsilon <= 6.0) == (0.0, True)
    for leakage in found.leakage.values():
        assert leakage.headline is not None
        assert not [scored for scored in leakage.attacks if scored.auc and math.isnan(scored.auc.value)]
    tried = {scored.attack for leakage in found.leakage.values() for scored in leakage.attacks}
    if "threat_models" in chosen.get("attacks", {}):
        wanted = [one if isinstance(one, str) else one["name"] for one in EVERY_ATTACK["attribute"]]
        everywhere = {scored.partition("@")[0] for scored in tried}
        assert set(wanted) <= everywhere
        made = {one.partition("@")[0] for one in found.reconstruction}
        assert made == {one["name"] for one in EVERY_ATTACK["reconstruction"]}
    assert set(found.references) == set(chosen.get("evaluation", {}).get("references", []))
    for reference in found.references.values():
        assert reference.leakage.keys() == found.leakage.keys()
