"""A made-up result and the pieces around it; the pictures are random noise, no faces."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privhier.config import RunConfig
from privhier.evaluation.report import ReconstructionSheet
from privhier.evaluation.result import Result


@pytest.fixture
def result() -> Result:
    return Result.read(Path(__file__).with_name("example_result.json"))


@pytest.fixture
def config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "made_up_example",
            "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
            "schedule": {"pretrain_epochs": 3, "cloud_epochs": 4},
            "release": {"mechanism": "gaussian", "target_epsilon": 8.0},
        }
    )


@pytest.fixture
def history() -> list[dict[str, Any]]:
    edge = [
        {"phase": "pretrain", "epoch": e, "edge_loss": 0.7 / (e + 1), "task_exit_accuracy": 0.6 + 0.1 * e}
        for e in range(3)
    ]
    return edge + [{"phase": "cloud", "epoch": e, "cloud_loss": 0.6 / (e + 1)} for e in range(4)]


@pytest.fixture
def sheet() -> ReconstructionSheet:
    rng = np.random.default_rng(0)
    rows: list[Any] = []
    for label in ("best", "median", "worst"):
        original = rng.integers(0, 256, (3, 24, 24), dtype=np.uint8)
        rows.append((f"{label}, record 3", original, rng.random((3, 24, 24), dtype=np.float32), None))
    return ReconstructionSheet("decoder", rows)


@pytest.fixture(scope="session")
def make_sweep() -> Any:
    """Writes made-up sweep folders; see ``made_up_sweep.py`` (read by path: tests import no tests)."""
    return runpy.run_path(str(Path(__file__).with_name("made_up_sweep.py")))["make_sweep"]
