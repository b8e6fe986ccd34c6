"""The run that tests train: one synthetic data set, one narrow network, seconds of work.

What a test needs otherwise it says as a change; nothing else about its run is its business. Read by path
(``runpy.run_path``), as tests import no tests; the fixture ``small_config`` is the same builder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privhier.config import RunConfig, load_config, parse_config

QUANTILE = {"quantile": 0.5, "epsilon": 0.5, "lowest": 0.01, "highest": 100.0}
"""A clip bound that is a quantile of the data, chosen with noise."""
SECOND = (
    "tracking.enabled=false",
    "dataset.options.images=160",
    "dataset.options.identities=80",
    "dataset.image_size=24",
    "training.batch_size=32",
    "attacks.auxiliary=24",
    "attacks.victims=24",
    "attacks.training_victims=12",
    "attacks.reconstruction=[]",
    "attacks.raw_image=false",
    "evaluation.bootstrap=100",
    "runtime.threads=1",
)


def small(
    name: str = "small",
    /,
    *,
    images: int = 240,
    size: int = 24,
    epochs: tuple[int, int, int] = (1, 1, 1),
    batch: int = 32,
    **changes: Any,
) -> dict[str, Any]:
    """A small run as plain data.

    Args:
        name: The run's.
        images: Of the data set; four of each person.
        size: Pixels of a side.
        epochs: Pretraining, joint, cloud.
        batch: Records of a step.
        changes: By key of the configuration; sections are merged, key by key, all the way down. A
            schedule stands whole: what it does not say is nought.
    """
    schedule = dict(zip(("pretrain_epochs", "joint_epochs", "cloud_epochs"), epochs, strict=True))
    base: dict[str, Any] = {
        "name": name,
        "dataset": {
            "name": "synthetic",
            "image_size": size,
            "task": ["smiling"],
            "sensitive": ["male"],
            "options": {"images": images, "identities": images // 4},
        },
        "model": {"bottleneck": {"kind": "dimension", "size": 4}, "exit_hidden": 8},
        "schedule": changes.pop("schedule", schedule),
        "training": {"batch_size": batch},
        "runtime": {"device": "cpu", "threads": 1},
    }
    return merged(base, changes)


def small_config(*arguments: Any, **changes: Any) -> RunConfig:
    """A small run; the arguments are those of ``small``."""
    return parse_config(small(*arguments, **changes))


def second(repository: Path, *more: str) -> RunConfig:
    """``configs/debug.yaml`` cut down until a whole run takes about a second; ``more`` is ``key=value``."""
    return load_config(repository / "configs" / "debug.yaml", [*SECOND, *more])


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with changes in it; sections in both are merged, anything else is replaced."""
    both = {
        key: merged(base[key], value)
        if isinstance(base.get(key), Mapping) and isinstance(value, Mapping)
        else value
        for key, value in changes.items()
    }
    return {**base, **both}
