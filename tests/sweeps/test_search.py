"""The multi-objective search: seeded, resumable, and better than chance on a known landscape."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from privhier.errors import CheckpointError
from privhier.sweeps import search as module
from privhier.sweeps.spec import load_sweep
from privhier.sweeps.state import SweepFolder

pytest.importorskip("optuna", reason="the extra `optuna` is not installed")

AXES = [
    {"key": "release.sigma", "values": [0.1, 0.2, 0.4, 0.8]},
    {"key": "release.clip", "random": {"low": 0.5, "high": 4, "log": True, "n": 1}},
    {
        "name": "defense",
        "variants": {
            "none": {"defense.name": "none", "defense.options": {}},
            "base": {"release.quantize": "float16"},
        },
    },
]


@pytest.fixture
def searched(write_sweep, tmp_path, monkeypatch):
    """Run a search on a made-up landscape; returns its trials and the points of each call to work."""

    def objectives(sweep, folder, trial):
        if trial["release.sigma"] == 3:
            return None  # a failed trial
        return [1 - abs(trial["release.clip"] - 2) / 4, 0.5 + trial["release.sigma"] / 10]

    monkeypatch.setattr(module, "_objectives", objectives)

    def search(name: str, n_trials: int, *, stop_after: int | None = None, **more: int):
        section = {"n_trials": n_trials, "seed": 1, "generation": 4} | more
        sweep = load_sweep(write_sweep(tmp_path / "s.yaml", axes=AXES, search=section))
        folder, calls = SweepFolder(tmp_path / name), []

        def work(points):
            if stop_after is not None and len(calls) == stop_after:
                raise KeyboardInterrupt
            calls.append([point.id for point in points])

        with suppress(KeyboardInterrupt):
            module.run_search(sweep, folder, work)
        return json.loads(folder.search.read_text())["trials"], calls

    return search


def test_every_trial_is_worked_on_with_every_seed(searched):
    trials, calls = searched("a", 10)
    assert len(trials) == 10
    assert [len(call) for call in calls] == [8, 8, 4]
    assert all(0.5 <= trial["release.clip"] <= 4 for trial in trials)


def test_the_same_seed_suggests_the_same_and_another_seed_does_not(searched):
    assert searched("a", 10)[0] == searched("b", 10)[0]
    assert searched("a", 10)[0] != searched("c", 10, seed=2)[0]


def test_a_stopped_search_goes_on_as_it_would_have(searched):
    whole, _ = searched("whole", 12)
    begun, _ = searched("stopped", 12, stop_after=1)
    assert begun == whole[:8], "suggestions are on disk before they are worked on"
    assert searched("stopped", 12)[0] == whole
    assert searched("stopped", 16)[0][:12] == whole


def test_it_learns_where_the_front_is(searched):
    trials, _ = searched("long", 60)
    late = trials[30:]
    near = sum(abs(trial["release.clip"] - 2) < 0.6 for trial in late) / len(late)
    early = sum(abs(trial["release.clip"] - 2) < 0.6 for trial in trials[:4]) / 4
    assert near > max(0.45, early)  # log-uniform draws come that near in 30 % of cases


def test_other_axes_are_refused(searched, write_sweep, tmp_path):
    searched("a", 4)
    sweep = load_sweep(write_sweep(tmp_path / "s.yaml", axes=AXES[:2], search={"n_trials": 4}))
    with pytest.raises(CheckpointError, match="other axes"):
        module.run_search(sweep, SweepFolder(tmp_path / "a"), lambda points: None)


def test_leakage_below_guessing_is_no_better_an_objective_than_guessing(result):
    name, leakage = next(iter(result.leakage.items()))

    def leaking(value):
        score = leakage.worst.auc.model_copy(update={"value": value, "low": value, "high": value})
        worst = leakage.worst.model_copy(update={"auc": score, "training_records": {}})
        changed = leakage.model_copy(update={"worst": worst, "headline": None})
        return module.objectives([result.model_copy(update={"leakage": {name: changed}})])[1]

    assert [leaking(value) for value in (0.414, 0.5, 0.6)] == [0.5, 0.5, 0.6]
