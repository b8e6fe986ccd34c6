"""A made-up sweep folder: the shapes are real, the numbers are invented. Used by tests and a benchmark."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from privhier.config import RunConfig
from privhier.storage.sealed import Sealed

EXAMPLE = Path(__file__).with_name("example_result.json")
LEAKAGE_COST = {"none": 1.0, "gradient_reversal": 0.62, "max_entropy": 0.5, "another": 0.7}


def make_sweep(
    folder: Path,
    *,
    sigmas: Sequence[float] = (0.0, 0.1, 0.3, 0.6),
    widths: Sequence[int] = (8, 64, 1024),
    defenses: Sequence[str] = ("none", "gradient_reversal", "max_entropy"),
    seeds: Sequence[int] = (0, 1),
    failed: int = 1,
    pending: int = 1,
) -> Path:
    """Write a sweep of all combinations; the last points are pending, those before them failed."""
    example = json.loads(EXAMPLE.read_text())
    axes = list(itertools.product(defenses, widths, sigmas, seeds))
    rows = []
    for number, (defense, width, sigma, seed) in enumerate(axes):
        settings = {"defense.name": defense, "model.bottleneck.size": width, "release.sigma": sigma}
        digest = hashlib.sha256(json.dumps([settings, seed]).encode()).hexdigest()
        row: dict[str, Any] = {
            "id": digest[:16],
            "config_hash": digest,
            "settings": settings,
            "family": defense,
            "seed": seed,
            "status": "done",
            "seconds": 12.5,
            "error": None,
        }
        if number >= len(axes) - pending:
            row |= {"status": "pending", "seconds": None}
        elif number >= len(axes) - pending - failed:
            row |= {"status": "failed", "error": "DataError: <made up> no person has two images"}
        else:
            write_point(folder / "points" / digest[:16], example, defense, width, sigma, seed)
        rows.append(row)
    index = {"schema": "privhier.sweep/1", "sweep_hash": "5" * 64, "points": rows}
    put(folder / "points.json", json.dumps(index))
    put(folder / "sweep.yaml", "name: made_up_front\n")
    return folder


def write_point(
    folder: Path, example: dict[str, Any], defense: str, width: int, sigma: float, seed: int
) -> None:
    """One finished point: more width is more useful, noise and defense cost both."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, width, round(sigma * 1000), len(defense)])
    strength = 1 / (1 + 4 * sigma**2 * 8 / width**0.3)
    utility = 0.5 + 0.44 * strength * (1 - 0.35 / width**0.5) - 0.02 * (1 - LEAKAGE_COST[defense])
    secret = 0.5 + 0.40 * strength * LEAKAGE_COST[defense] * (1 - 0.6 / width**0.5)
    data = copy.deepcopy(example) | {"seed": seed}
    data["release"] |= {"sigma": sigma, "values": width, "shape": [width]}
    data["utility_mean"]["auc"] = score(utility + rng.normal(0, 0.006), 0.012)
    for index, leakage in enumerate(data["leakage"].values()):
        kind = "auc" if leakage["worst"].get("auc") else "verification_auc"
        leakage["worst"][kind] = score(secret - 0.03 * index + rng.normal(0, 0.008), 0.016)
        leakage["worst"]["training_records"] = {}
        put_floor(leakage, kind, list(data["utility"]))
        if sigma == 0:
            leakage["ceiling"] = None
        elif leakage["ceiling"]:
            leakage["ceiling"]["auc"] = min(0.5 + 0.22 / sigma, 1.0) if index == 0 else None
    if sigma == 0:
        data["guarantees"] = [row | {"epsilon": None} for row in data["guarantees"]]
    data["by_group"] = groups(data, utility, secret, rng)
    for name, reference in data["references"].items():
        reference["release_shape"] = [width if name == "open" else 4096]
        reference["utility_mean"]["auc"] = score(0.93 if name == "open_wide" else 0.90, 0.01)
        reference["leakage"] = {
            key: value | {"worst": value["worst"] | {"auc": score(0.86 - 0.02 * i, 0.012)}}
            for i, (key, value) in enumerate(reference["leakage"].items())
        }
        reference["by_group"] = groups(data, 0.93, 0.86, rng)
    put(folder / "result.json", json.dumps(data))
    (folder / "report.html").write_text("<!DOCTYPE html><title>made up</title>")
    config = RunConfig.model_validate(
        {
            "name": "made_up",
            "seed": seed,
            "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
            "schedule": {"cloud_epochs": 1},
            "defense": defense,
            "release": {"mechanism": "gaussian", "sigma": sigma},
        }
    )
    put(folder / "config.yaml", config.to_yaml())


def put_floor(leakage: dict[str, Any], kind: str, tasks: list[str]) -> None:
    """What the labels alone say: a little more than guessing."""
    value, classes = leakage["worst"][kind]["value"], max(len(leakage["classes"]), 2)
    leakage["floor"] = {"attack": "table", kind: score(0.53, 0.01)}
    leakage["excess"] = {kind: {"value": value - 0.53, "low": value - 0.56, "high": value - 0.5, "n": 3000}}
    counts = [[700 - 30 * ((cell + k) % 3) for k in range(classes)] for cell in range(2 ** len(tasks))]
    if kind == "auc":
        leakage["label_counts"] = {"tasks": tasks, "sizes": [2] * len(tasks), "counts": counts}


def put(path: Path, text: str) -> None:
    """Write a file as the engine would: with its digest."""
    Sealed(path.parent).write(path, text)


def groups(data: dict[str, Any], utility: float, secret: float, rng: np.random.Generator) -> dict[str, Any]:
    """Made-up numbers by class: the later classes pay more."""
    found: dict[str, Any] = {}
    for attribute, leakage in data["leakage"].items():
        if leakage["classes"]:
            found[attribute] = {
                name: {
                    "n": 3000 // (k + 2),
                    "task_accuracy": {
                        task: score(utility - 0.04 - 0.03 * k + rng.normal(0, 0.01), 0.03)
                        for task in data["utility"]
                    },
                    "attack_recall": score(secret - 0.1 * k + rng.normal(0, 0.02), 0.05),
                }
                for k, name in enumerate(leakage["classes"])
            }
    return found


def score(value: float, half: float) -> dict[str, float | int]:
    """A score with a symmetric interval inside [0, 1]."""
    value = min(max(float(value), 0.0), 1.0)
    return {"value": value, "low": max(value - half, 0.0), "high": min(value + half, 1.0), "n": 3000}
