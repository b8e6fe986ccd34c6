"""A sweep of two points in a second each, and what may differ between two computations of a point."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Write = Callable[..., Path]
SMALLER = {
    "dataset.image_size": 24,
    "dataset.options.images": 160,
    "dataset.options.identities": 40,
    "training.batch_size": 32,
    "attacks.auxiliary": 24,
    "attacks.victims": 24,
    "attacks.training_victims": 12,
}


@pytest.fixture(scope="session")
def write_sweep(repository) -> Write:
    """Write a sweep file over the debug configuration; keyword arguments replace its keys."""

    def write(path: Path, **changes: Any) -> Path:
        data: dict[str, Any] = {
            "name": "tiny",
            "base": str(repository / "configs" / "debug.yaml"),
            "overrides": {
                **SMALLER,
                "runtime.threads": 1,
                "tracking.enabled": False,
                "attacks.reconstruction": [],
                "evaluation.references": ["open"],
            },
            "axes": [{"key": "release.sigma", "values": [0.1, 0.3]}],
            "seeds": [0, 1],
        }
        data["overrides"] |= changes.pop("more", {})
        path.write_text(yaml.safe_dump(data | changes))
        return path

    return write


@pytest.fixture(scope="session")
def smaller() -> list[str]:
    """By what a point is smaller than the debug run, as the command line has it."""
    return [f"{key}={value}" for key, value in SMALLER.items()]


@pytest.fixture(scope="session")
def numbers() -> Callable[[Path], dict[str, Any]]:
    """The results of a sweep's points without timing, git, and the attackers' seconds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in ("timing", "git", "seconds")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    def read(sweep: Path) -> dict[str, Any]:
        paths = sorted((sweep / "points").glob("*/result.json"))
        return {path.parent.name: strip(json.loads(path.read_text())) for path in paths}

    return read
