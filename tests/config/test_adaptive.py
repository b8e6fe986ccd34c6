"""Attackers who adapt run by default where there is a defense to adapt to, and nowhere else."""

from __future__ import annotations

import copy

import pytest

from privhier.assessment.victims import attribute_plan, build_attacks, check_bench
from privhier.config import load_config, parse_config
from privhier.config.attacks import ADAPTIVE
from privhier.session import reference_config

BASE = {
    "name": "r",
    "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
    "schedule": {"cloud_epochs": 1},
    "runtime": {"threads": 2},
}
PLAIN = ["logistic_regression", "gradient_boosting", "mlp", "cnn"]


def made(defense="max_entropy", **attacks):
    return parse_config(copy.deepcopy(BASE) | {"defense": defense, "attacks": attacks})


def names(config):
    return [name for name, _ in build_attacks(config)["male"]]


def test_a_defended_run_meets_them_and_an_undefended_one_does_not():
    bare, defended = made("none"), made()
    assert names(bare) == PLAIN
    assert bare.attackers == bare.attacks
    assert names(defended) == [*PLAIN, *ADAPTIVE]
    assert defended.attackers.threat_models == ["curious_cloud", "white_box"]
    assert [name for name, _ in attribute_plan(defended, "smiling")] == [*PLAIN, *ADAPTIVE]
    check_bench(defended)


@pytest.mark.parametrize(
    "chosen", [{"adaptive": False}, {"attribute": ["mlp"]}, {"threat_models": ["eavesdropper"]}]
)
def test_who_chose_otherwise_is_left_alone(chosen):
    config = made(**chosen)
    assert config.attackers == config.attacks
    check_bench(config)


def test_they_can_be_asked_for_beside_others_and_against_nothing():
    config = made(adaptive=True, attribute=["mlp", {"name": "fine_tune", "options": {"epochs": 2}}])
    assert names(config) == ["mlp", "fine_tune", "decensor"]
    assert build_attacks(config)["male"][1][1].epochs == 2
    assert config.attackers.threat_models == ["curious_cloud", "white_box"]
    assert names(made("none", adaptive=True)) == [*PLAIN, *ADAPTIVE]
    models = made(adaptive=True, threat_models=["white_box", "eavesdropper"]).attackers.threat_models
    assert models == ["white_box", "eavesdropper"]


def test_the_choice_survives_writing_and_follows_an_override(tmp_path):
    (tmp_path / "c.yaml").write_text(made().to_yaml())
    again = load_config(tmp_path / "c.yaml")
    assert (again, again.hash(), names(again)) == (made(), made().hash(), [*PLAIN, *ADAPTIVE])
    assert names(load_config(tmp_path / "c.yaml", ["defense.name=none"])) == PLAIN
    (tmp_path / "n.yaml").write_text(made("none").to_yaml())
    assert names(load_config(tmp_path / "n.yaml", ["defense.name=max_entropy"])) == [*PLAIN, *ADAPTIVE]


def test_the_hash_knows_who_attacks_and_is_the_old_one_where_nobody_adapts():
    assert made().hash() == made(adaptive=True).hash() != made(adaptive=False).hash()
    assert made("none").hash() == made("none", adaptive=False).hash()
    data = made("none").model_dump(mode="json")
    assert data["attacks"].pop("adaptive") == "auto"
    assert parse_config(data).hash() == made("none").hash()
    named = made(attribute=["mlp"])
    assert named.hash() == made(attribute=["mlp"], adaptive=False).hash()


def test_a_reference_meets_whoever_the_run_meets():
    """What a run is held against must have been attacked by the same."""
    assert names(reference_config(made(), "open")) == [*PLAIN, *ADAPTIVE]
    assert names(reference_config(made("none"), "open")) == PLAIN
    assert names(reference_config(made(attribute=["mlp"]), "open")) == ["mlp"]


def test_a_white_box_that_was_asked_for_does_not_keep_them_out():
    assert names(made(threat_models=["curious_cloud", "white_box"])) == [*PLAIN, *ADAPTIVE]
