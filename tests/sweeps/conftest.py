"""A sweep of two points in a second each, and what may differ between two computations of a point."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write_sweep(repository) -> Write:
    """Write a sweep file over the debug configuration; keyword arguments replace its keys."""

    def write(path: Path, **changes: Any) -> Path:
        data: dict[str, Any] = {
            "name": "tiny",
            "base": str(repository / "configs" / "debug.yaml"),
            "overrides": {
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
