"""What runs on a card gives what a CPU gives, in numbers, after a resume and to an attacker.

``make gpu`` runs the CUDA half; what it tries runs on a CPU here or, through the same code, in
``test_resident.py``, ``test_compiled.py`` and ``test_private_edge.py``. Tolerances: float32 with TF32
convolutions 1 %, bfloat16 5 % of the loss.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier import session as job
from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trainer import Trainer

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
small_config = SMALL["small_config"]
CUDA = torch.cuda.is_available()
NO_CARD = pytest.mark.skipif(not CUDA, reason="no CUDA device is at hand")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_CARD])]
PRIVATE = {"dp_sgd": {"noise_multiplier": 1.5, "physical_batch_size": 32}}
ROWS = {
    "plain": {},
    "resident": {"runtime": {"resident": True}},
    "ahead": {"runtime": {"resident": False}},
    "channels_last": {"runtime": {"channels_last": True}},
    "dp_sgd": {"edge": PRIVATE},
}


def config_of(row: str, **runtime) -> RunConfig:
    changes = {key: dict(value) for key, value in ROWS[row].items()}
    changes["runtime"] = {"threads": 1, **changes.get("runtime", {}), **runtime}
    return small_config(epochs=(2, 1, 0), release={"mechanism": "gaussian", "sigma": 0.3}, **changes)


def job_of(config: RunConfig, folder: Path, device: str) -> Trainer:
    data = prepare(config, load_dataset(config.dataset, seed=0)).data
    run = RunFolder(folder)
    if not run.config.exists():
        occupy(run, config, "0" * 64)
    mechanism = build_mechanism(config, len(data.splits.train))
    return Trainer(config, data, mechanism, run, device=torch.device(device), keep=data.splits.train[:9])


def losses_of(config: RunConfig, folder: Path, device: str) -> list[float]:
    return [epoch["edge_loss"] for epoch in job_of(config, folder, device).run().history]


@pytest.mark.cuda
@NO_CARD
@pytest.mark.parametrize("row", ROWS)
def test_a_card_trains_what_the_cpu_trains(row, tmp_path):
    found = [losses_of(config_of(row), tmp_path / where, where) for where in ("cpu", "cuda")]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(*found, rtol=0.01)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_trains_nearly_the_same(device, private, tmp_path):
    row = "dp_sgd" if private else "plain"
    exact, low = (
        losses_of(config_of(row, precision=precision), tmp_path / precision, device)
        for precision in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(low, exact, rtol=0.05)
    assert low != exact


@pytest.mark.cuda
@NO_CARD
@pytest.mark.parametrize("row", ["plain", "dp_sgd"])
def test_a_resumed_training_goes_on_with_the_same_numbers(row, tmp_path, monkeypatch):
    whole = losses_of(config_of(row), tmp_path / "whole", "cuda")
    save = Trainer._save

    def stopping(self: Trainer, done: int) -> None:
        save(self, done)
        if done == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", stopping)
        with pytest.raises(KeyboardInterrupt):
            job_of(config_of(row), tmp_path / "half", "cuda").run()
    resumed = losses_of(config_of(row), tmp_path / "half", "cuda")
    np.testing.assert_allclose(resumed, whole, rtol=1e-3)


@pytest.mark.cuda
@NO_CARD
def test_a_run_with_its_attacks_on_a_card(repository, tmp_path):
    results = [
        job.run(
            job.open_session(SMALL["second"](repository, f"runtime.device={device}"), tmp_path / device),
            command="privhier run",
        )
        for device in ("cpu", "cuda")
    ]
    ours, theirs = (result.leakage["male"].worst.auc.value for result in results)
    assert abs(ours - theirs) < 0.1


def test_the_benchmark_runs_through_tiny_on_a_cpu(repository, tmp_path):
    command = [sys.executable, str(repository / "benchmarks" / "gpu.py")]
    out = tmp_path / "gpu.md"
    done = subprocess.run(
        [*command, "--cpu", "--out", str(out)], capture_output=True, text=True, check=False, cwd=repository
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in out.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 3 * 8
    assert "a CPU (a trial: no measurement)" in out.read_text()


@pytest.mark.skipif(CUDA, reason="there is a card")
def test_without_a_card_make_gpu_says_so_and_fails(repository):
    command = [sys.executable, str(repository / "benchmarks" / "gpu.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)
    assert done.returncode == 2
    assert done.stdout.strip() == "gpu: no CUDA device is at hand; nothing was tested or measured"
