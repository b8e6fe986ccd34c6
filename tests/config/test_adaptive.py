"""Attackers who adapt run by default where there is a defense to adapt to, and nowhere else."""

from __future__ import annotations

import copy
import hashlib
import json

import pytest

from privhier.assessment.victims import attribute_plan, build_attacks, check_bench
from privhier.attacks.base import attacks
from privhier.config import hashless, load_config, parse_config
from privhier.config.attacks import ADAPTIVE, ADAPTIVE_VERIFICATION
from privhier.session import reference_config

BASE = {
    "name": "r",
    "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
    "schedule": {"cloud_epochs": 1},
    "runtime": {"threads": 2},
}
PLAIN = ["logistic_regression", "gradient_boosting", "rbf_kernel", "mlp", "cnn"]


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


def people(defense="max_entropy", protocol="unknown_people", sensitive=("identity",), **attacks):
    dataset = BASE["dataset"] | {"sensitive": list(sensitive), "identity_protocol": protocol}
    return parse_config(copy.deepcopy(BASE) | {"dataset": dataset, "defense": defense, "attacks": attacks})


def verifiers(config):
    return [name for name, _ in build_attacks(config)["identity"]]


def test_who_hides_people_meets_who_adapts_to_it_and_nobody_else_does():
    hidden = people()
    assert [choice.name for choice in hidden.attackers.verification] == ["metric", *ADAPTIVE_VERIFICATION]
    assert verifiers(hidden) == ["metric", *ADAPTIVE_VERIFICATION]
    assert hidden.attackers.threat_models == ["curious_cloud", "white_box"]
    check_bench(hidden)
    both = people(sensitive=("male", "identity"))
    assert (names(both), verifiers(both)) == ([*PLAIN, *ADAPTIVE], ["metric", *ADAPTIVE_VERIFICATION])
    for config in (people("none"), people(adaptive=False), people(threat_models=["eavesdropper"])):
        assert config.attackers == config.attacks
        assert verifiers(config) == ["metric"]
    assert verifiers(people("none", adaptive=True)) == ["metric", *ADAPTIVE_VERIFICATION]
    assert verifiers(people(protocol="known_people")) == [*PLAIN, *ADAPTIVE]  # there names are classes
    assert made().attackers.verification == made().attacks.verification
    assert names(reference_config(both, "open")) == names(both)
    assert verifiers(reference_config(hidden, "open")) == verifiers(hidden)


def test_a_verifier_that_was_named_with_options_is_not_named_twice():
    chosen = [{"name": "fine_tune_metric", "options": {"epochs": 2}}, "metric"]
    config = people(verification=chosen)
    assert verifiers(config) == ["fine_tune_metric", "metric"]
    assert build_attacks(config)["identity"][0][1].epochs == 2


def test_the_hash_knows_of_them_where_they_run_and_only_there():
    assert people().hash() == people(adaptive=True).hash() != people(adaptive=False).hash()
    assert people("none").hash() == people("none", adaptive=False).hash()
    for config, before in ((people(), False), (people(protocol="known_people"), True), (made(), True)):
        data = config.model_dump(mode="json", exclude={**hashless(config.runtime), "privacy": {"noise_seed"}})
        del data["edge"]["warmup_epochs"]
        data["attacks"]["adaptive"] = True
        old = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        assert (config.hash() == old) is before


@pytest.mark.parametrize("kind", ["attribute", "verification"])
def test_every_attacker_of_these_lists_is_of_its_kind_and_holds_the_weights(kind):
    listed = {"attribute": ADAPTIVE, "verification": ADAPTIVE_VERIFICATION}[kind]
    for name in listed:
        assert (attacks.get(name).kind, attacks.get(name).white_box) == (kind, True)
