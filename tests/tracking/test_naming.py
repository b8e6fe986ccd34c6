"""What runs are called, their colors, their notes and the view that an experiment opens on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from privhier.config import RunConfig
from privhier.defenses.base import defenses
from privhier.tracking.naming import defense_color, run_name
from privhier.tracking.notes import LONGEST, experiment_note, run_note
from privhier.tracking.view import VIEW, view_path, view_value

LETTERS = {"bottleneck": {"kind": "letters", "size": 1, "letters": 8}}


def config(**more: Any) -> RunConfig:
    data = {"dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]}}
    schedule = {"schedule": {"pretrain_epochs": 1, "cloud_epochs": 1}}
    return RunConfig.model_validate({"name": "a", **data, **schedule, **more})


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, "no defense, no noise, seed=0"),
        ({"seed": 3, "defense": {"name": "max_entropy"}}, "max_entropy, no noise, seed=3"),
        ({"release": {"mechanism": "gaussian", "sigma": 0.25}}, "no defense, gaussian sigma=0.25, seed=0"),
        (
            {"release": {"mechanism": "laplace", "target_epsilon": 8}},
            "no defense, laplace epsilon=8, seed=0",
        ),
        (
            {"model": LETTERS, "release": {"mechanism": "randomized_response", "target_epsilon": 2}},
            "no defense, 8 letters, randomized_response epsilon=2, seed=0",
        ),
        (
            {"model": {"bottleneck": {**LETTERS["bottleneck"], "groups": 3}}},
            "no defense, 3 x 8 letters, no noise, seed=0",
        ),
    ],
)
def test_a_runs_name_says_what_it_is(more: dict[str, Any], wanted: str) -> None:
    made = config(**more)
    assert run_name(made, Path("runs") / made.folder_name) == f"a: {wanted}"
    assert run_name(made, Path("runs") / "first try") == f"a (first try): {wanted}"


def test_equal_configurations_in_two_folders_are_told_apart() -> None:
    assert run_name(config(), Path("one")) != run_name(config(), Path("two"))


def test_every_defense_has_a_color_of_its_own() -> None:
    names = defenses.names()
    colors = {name: defense_color(name) for name in names}
    assert len(set(colors.values())) == len(names)
    assert colors["none"] == "#767676"
    assert all(len(color) == 7 and int(color[1:], 16) >= 0 for color in colors.values())


def test_a_note_holds_sentences_and_pictures_of_its_own_run() -> None:
    note = run_note(["One.", "Two."], ["figures/a b.png"], run_id="77", experiment="4")
    assert note.startswith("One.\n\nTwo.\n\n![figures/a b.png](get-artifact?")
    address = urlsplit(note.partition("](")[2].partition(")")[0])
    assert (address.scheme, address.netloc) == ("", "")  # of whatever server shows the page
    assert parse_qs(address.query) == {"path": ["figures/a b.png"], "run_uuid": ["77"]}
    assert view_path("4") in note
    assert view_path("4") in experiment_note("4")


def test_a_long_note_is_cut_before_its_pictures() -> None:
    note = run_note(["x" * 9000], ["figures/a.png"], run_id="7", experiment="4")
    assert len(note) <= LONGEST
    assert note.endswith(")")
    assert "figures%2Fa.png" in note


def test_the_view_is_an_envelope_and_the_state_itself() -> None:
    value = view_value()
    assert len(value) < 20000  # what MLflow takes
    envelope = json.loads(value)
    state = json.loads(envelope["state"])
    assert {type(envelope[key]) for key in ("createdAt", "updatedAt")} == {int}
    assert envelope["name"] == "Utility against leakage"
    assert state.items() <= envelope.items()  # for versions that know no envelope
    (first, *_) = state["compareRunCharts"]
    assert (first["type"], first["xaxis"]["key"], first["yaxis"]["key"]) == ("SCATTER", "utility", "leakage")
    sections = [section["uuid"] for section in state["compareRunSections"]]
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {sections[0]}
    assert VIEW in view_path("1")
