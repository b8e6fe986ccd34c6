"""What a sweep knows of a cut: only points that answer the question asked."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from privhier.config import RunConfig, ScheduleConfig
from privhier.errors import ResultError
from privhier.planner.leakage_by_cut import LeakageByCut
from privhier.storage.sealed import Sealed

EXAMPLE = json.loads((Path(__file__).parents[1] / "made_up" / "example_result.json").read_text())
BASE: dict[str, Any] = {
    "name": "made_up",
    "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
    "model": {"cut": "stage1", "bottleneck": {"kind": "dimension", "size": 8}},
    "schedule": {"cloud_epochs": 1},
    "release": {"mechanism": "gaussian", "sigma": 0.3},
}


def config(**changes: Any) -> RunConfig:
    data = copy.deepcopy(BASE)
    for key, value in changes.items():
        *path, last = key.split("__")
        part = data
        for name in path:
            part = part[name]
        part[last] = value
    return RunConfig.model_validate(data)


def make_sweep(folder: Path, points: list[tuple[dict[str, Any], RunConfig, float]]) -> LeakageByCut:
    rows = []
    for number, (settings, resolved, auc) in enumerate(points):
        place = folder / "points" / f"p{number}"
        place.mkdir(parents=True)
        Sealed(place).write(place / "config.yaml", resolved.to_yaml())
        data = copy.deepcopy(EXAMPLE)
        for index, leakage in enumerate(data["leakage"].values()):
            kind = "auc" if leakage["worst"].get("auc") else "verification_auc"
            value = auc - 0.1 * index
            leakage["worst"][kind] = {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100}
        Sealed(place).write(place / "result.json", json.dumps(data))
        row = {"id": f"p{number}", "config_hash": str(number), "seed": resolved.seed, "status": "done"}
        rows.append(row | {"settings": settings})
    index = {"schema": "privhier.sweep/1", "sweep_hash": "5" * 64, "points": rows}
    Sealed(folder).write_json(folder / "points.json", index)
    return LeakageByCut(folder)


ONCE = ScheduleConfig(cloud_epochs=4)


def test_the_worst_attribute_of_points_with_this_cut_mean_over_seeds(tmp_path):
    known = make_sweep(
        tmp_path,
        [
            ({"model.cut": "stage1"}, config(seed=0), 0.80),
            ({"model.cut": "stage1"}, config(seed=1), 0.70),
            ({"model.cut": "stage2"}, config(model__cut="stage2"), 0.60),
        ],
    )
    found = known.of(config(), cut="stage1", schedule=ONCE)
    assert found is not None
    assert (found.value, found.seeds) == (0.75, 2)
    second = known.of(config(), cut="stage2", schedule=ONCE)
    assert second is not None
    assert second.value == 0.6
    assert known.of(config(), cut="stage3", schedule=ONCE) is None


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"model__bottleneck": {"kind": "none", "size": None}}, {}),
        ({"model__backbone": "resnet18"}, {}),
        ({"dataset__sensitive": ["glasses"]}, {}),
        ({"release__sigma": 0.6}, {"release.sigma": 0.3}),
        ({"defense": {"name": "max_entropy"}}, {"defense.name": "none"}),
    ],
)
def test_what_differs_from_the_plan_is_not_known(tmp_path, changes, settings):
    known = make_sweep(tmp_path, [({"model.cut": "stage1", **settings}, config(), 0.8)])
    assert known.of(config(), cut="stage1", schedule=ONCE) is not None
    assert known.of(config(**changes), cut="stage1", schedule=ONCE) is None


def test_more_releases_of_a_record_than_were_attacked_are_not_known(tmp_path):
    known = make_sweep(tmp_path, [({"model.cut": "stage1"}, config(), 0.8)])
    assert known.of(config(), cut="stage1", schedule=ScheduleConfig(joint_epochs=1)) is not None
    assert known.of(config(), cut="stage1", schedule=ScheduleConfig(joint_epochs=8)) is None


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(ResultError):
        LeakageByCut(tmp_path)
