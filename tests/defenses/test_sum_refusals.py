"""Whatever a part of a sum is refused for is named under the part's own key, wherever it is found out."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from privhier.config import Choice
from privhier.defenses.base import build_defense, defenses
from privhier.errors import ConfigError, PrivhierError, TrainingError
from privhier.training.private_plan import check_defense

contract = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "test_defenses.py"))
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
make_edge, make_data = contract["make_edge"], contract["make_data"]


def refuse(kind: str, /, *parts, **changes) -> str:
    """What a run with these parts is refused for: where it is built, planned, checked or finished."""
    model = {"model": {"bottleneck": contract["BOTTLENECKS"][kind]}}
    if kind == "letters":
        model["release"] = {"mechanism": "randomized_response", "target_epsilon": 6.0, "sigma": None}
    listed = {"name": "sum", "options": {"parts": ["none", *parts]}}

    def start() -> None:
        config = small_config(**{**model, **changes}, defense=listed)
        defense = build_defense(config.defense)
        check_defense(config, defense)
        edge = make_edge(kind)
        outlet = defense.outlet(edge.feature_shape)
        edge.outlet = outlet or edge.outlet
        data = replace(make_data(edge), persons=torch.arange(1600))
        defense.check(edge, data)
        defense.attach(edge)
        defense.begin(edge, data)
        defense.finish(edge, data)

    with pytest.raises(PrivhierError) as caught:
        start()
    assert caught.value.exit_code == 2
    assert "defense.options.parts[1]" in str(caught.value)
    assert not re.search(r"defense\.(name|options\.(?!parts))", str(caught.value))
    return f"{type(caught.value).__name__}: {caught.value}"


ALONE = {"schedule": {"pretrain_epochs": 1, "cloud_epochs": 1}}
PRIVATE = {"edge": {"dp_sgd": {"noise_multiplier": 1.0}}}
NOISELESS = {"release": {"mechanism": "none"}}
OWN = r"defense\.options\.parts\[1\]"
REFUSALS = {
    "bound": (("vector", {"name": "gain", "options": {"weight": -1.0}}), OWN + r"\.options\.weight: -1\.0"),
    "together": (
        ("vector", {"name": "max_entropy", "options": {"restart_every": 3}}),
        OWN + r"\.options: .*restart_every",
    ),
    "unknown": (("vector", "gian"), r"UnknownNameError: " + OWN + r"\.name: 'gian' - .*gain"),
    "letters": (("vector", "letters_balance"), rf"must be letters with .*'letters_balance' \({OWN}\)"),
    "values": (("letters", "gain"), rf"must not be letters with the defense 'gain' \({OWN}\)"),
    "map": (("vector", "disco"), rf"must keep the map with the defense 'disco' \({OWN}\)"),
    "noise": (("vector", "vib"), NOISELESS, rf"'vib' \({OWN}\)\. .*{OWN}\.options\.sigma"),
    "schedule": (("vector", "erase"), rf"must be pre-training alone.*'erase' \({OWN}\)"),
    "fit": (("letters", "erase"), ALONE, rf"must be found after pre-training.*'erase' \({OWN}\)"),
    "mixes": (("vector", "cell_means"), PRIVATE, OWN + r"\.name: 'cell_means' - compares the records"),
    "nobody": (("vector", "hsic"), {"training": {"batch_size": 1}}, rf"at least 2 with .*'hsic' \({OWN}\)"),
    "steps": (("vector", "min_max"), PRIVATE, rf"{OWN}: 'min_max' - takes.*{OWN}\.options\.adversary"),
    "records": (("vector", "leak_budget"), PRIVATE, OWN + r": 'leak_budget' - learns from private"),
    "parameters": (("vector", "gain"), PRIVATE, OWN + r": 'gain' - trains parameters of its own"),
    "outlet": (
        ("map", {"name": "disco", "options": {"keep": 0.9}}),
        OWN + r"\.options\.keep: 0\.9 - .*Lower " + OWN + r"\.options\.keep",
    ),
    "too wide": (
        ("vector", {"name": "kernel_closed_form", "options": {"features": 10**7}}),
        ALONE,
        rf"model\.bottleneck: .*\(asked for by {OWN}\)\. Set {OWN}\.options\.features",
    ),
    "nothing left": (("vector", {"name": "erase", "options": {"method": "quadratic", "rank": 9}}), ALONE,
        OWN + r"\.options\.method: 'quadratic' - would erase.*lower " + OWN + r"\.options\.rank"),
    "no persons": (
        ("vector", {"name": "erase", "options": {"method": "person"}}),
        ALONE,
        OWN + r"\.options\.method: 'person' - needs training people",
    ),
    "budget": (
        ("vector", {"name": "leak_budget", "options": {"budgets": [0.0, 0.0, 0.0]}}),
        OWN + r"\.options\.budgets: .*one budget for each of the 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_whatever_a_part_is_refused_for_stands_under_its_own_key(kind):
    (release, part), *changes, message = REFUSALS[kind]
    assert re.search(message, refuse(release, part, **dict(*changes)))


def test_a_budget_that_cannot_be_kept_is_refused_under_the_parts_key():
    part = {"name": "leak_budget", "options": {"budgets": [0.0]}}
    edge = make_edge("vector")
    defense = build_defense(Choice(name="sum", options={"parts": ["max_entropy", part]}))
    data = make_data(edge)
    tied = replace(data, sensitive_labels=[data.task_labels[0], data.sensitive_labels[1]])
    with pytest.raises(ConfigError, match=OWN + r"\.options\.budgets: \[0\.0\] - allows 0 nats of race==0"):
        defense.check(edge, tied)


def test_what_is_found_out_at_the_end_of_pre_training_too():
    defense = build_defense(Choice(name="sum", options={"parts": ["none", "kernel_closed_form"]}))
    edge = make_edge("vector")
    edge.outlet = defense.outlet(edge.feature_shape)
    data = make_data(edge)
    tied = replace(data, sensitive_labels=data.task_labels)
    with pytest.raises(TrainingError, match=OWN + r"\.options\.weight: 1\.0 - leaves no direction"):
        defense.finish(edge, tied)


def test_every_refusal_that_a_defense_writes_is_looked_at():
    """A new ``raise`` in a defense's file wants its row above."""
    room = Path(defenses.get("sum").loss.__code__.co_filename).parent
    raised = {
        path.stem: len(re.findall(r"(?:raise|return) \w*Error\(", path.read_text()))
        for path in room.glob("*.py")
        if path.stem != "sum"
    }
    known = {"adversarial": 1, "disco": 1, "erase": 3, "kernel_closed_form": 2, "leak_budget": 2}
    assert {name: count for name, count in raised.items() if count} == known
