"""Several workers a device: decisions tried with plain numbers, and what workers and Ray are told of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from privhier.config import RunConfig
from privhier.errors import ConfigError
from privhier.sweeps import local, ray_engine, worker
from privhier.sweeps.device_share import (
    Seat,
    default_workers,
    limit_memory,
    read_share,
    seat_of,
    share_of,
    wants_cuda,
)
from privhier.sweeps.job import run_sweep
from privhier.sweeps.local import LocalEngine
from privhier.sweeps.ray_engine import RayEngine
from privhier.sweeps.spec import Resources, load_sweep
from privhier.sweeps.state import SweepFolder


class Recorder:
    """``torch.cuda`` on a machine with a device, as far as a share goes."""

    def __init__(self, available: bool = True) -> None:
        self.available = available
        self.limits: list[tuple[float, int]] = []

    def is_available(self) -> bool:
        return self.available

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        self.limits.append((fraction, device))


def test_auto_leaves_every_worker_an_equal_part_and_room_for_contexts():
    assert share_of(1, 1, "auto") == 1.0
    assert share_of(4, 4, "auto") == 1.0, "no two on one device"
    assert share_of(8, 1, "auto") == pytest.approx(0.1125)
    assert share_of(5, 2, "auto") == pytest.approx(0.3), "three on the fuller device"
    for workers in range(2, 65):
        assert 0.85 < workers * share_of(workers, 1, "auto") <= 0.9 + 1e-9


def test_a_stated_share_is_kept_and_one_too_many_is_refused_with_what_fits():
    assert share_of(4, 1, 0.25) == 0.25
    assert share_of(3, 1, 1 / 3) == pytest.approx(1 / 3)
    assert share_of(1, 1, 0.5) == 0.5, "somebody else may be on the card"
    with pytest.raises(ConfigError, match=r"--device-share: 0\.25 - 5 workers on 1 device.*--workers 4"):
        share_of(5, 1, 0.25)
    with pytest.raises(ConfigError, match="--workers 2"):
        share_of(3, 2, 0.6)


@pytest.mark.parametrize("value", ["auto", "0.125", 0.125, 1, "1"])
def test_shares_that_are_read(value):
    assert read_share(value) == ("auto" if value == "auto" else float(value))


@pytest.mark.parametrize("value", ["", "half", 0, "0", -0.5, 1.5, "nan", "inf", True, 1e-9, None])
def test_shares_that_are_refused(value):
    with pytest.raises(ConfigError, match="--device-share") as caught:
        read_share(value)
    assert caught.value.exit_code == 2


def test_the_number_of_workers_nobody_stated():
    assert default_workers(2, 16) == 8
    assert default_workers(32, 16) == 1
    assert default_workers(2, 16, devices=1, share="auto") == 8
    assert default_workers(2, 16, devices=1, share=0.25) == 4
    assert default_workers(2, 16, devices=2, share=0.25) == 8
    assert default_workers(1, 2, devices=1, share=0.125) == 2, "cores bound it too"


def test_devices_take_turns_and_a_worker_sees_its_own():
    assert [seat_of(number, 2, 0.3).device for number in range(5)] == [0, 1, 0, 1, 0]
    assert seat_of(3, 0, 1.0) == Seat(None, 1.0)
    assert Seat(1).environment({}, 2) == {"CUDA_VISIBLE_DEVICES": "1"}
    there = {"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b", "HOME": "x"}
    assert Seat(1).environment(there, 2) == {"CUDA_VISIBLE_DEVICES": "GPU-b", "HOME": "x"}
    assert Seat(0).environment({"A": "b"}, 1) == {"A": "b"}, "with one device there is nothing to choose"
    assert Seat().environment({"A": "b"}, 0) == {"A": "b"}


def test_the_limit_reaches_torch_only_where_there_is_something_to_limit():
    cuda = Recorder()
    limit_memory(0.25, cuda)
    limit_memory(1.0, cuda)
    assert cuda.limits == [(0.25, 0)]
    nothing = Recorder(available=False)
    limit_memory(0.25, nothing)
    assert nothing.limits == []


def config(write_sweep, tmp_path: Path, device: str) -> RunConfig:
    spec = write_sweep(tmp_path / f"{device}.yaml", more={"runtime.device": device})
    return load_sweep(spec).points()[0].config


def test_points_on_the_cpu_use_no_device(write_sweep, tmp_path):
    auto, cpu = (config(write_sweep, tmp_path, device) for device in ("auto", "cpu"))
    assert wants_cuda([cpu, auto], available=True)
    assert not wants_cuda([cpu], available=True)
    assert not wants_cuda([auto], available=False)


def test_local_workers_are_told_their_device_and_share(tmp_path, monkeypatch):
    """Through the engine's own hiring: eight on two devices; a lost one's seat is taken again."""
    told: list[tuple[list[str], str]] = []

    def start(command, *, env, **options):
        told.append((command[5:], env["CUDA_VISIBLE_DEVICES"]))
        return SimpleNamespace(wait=lambda timeout=None: 0)

    monkeypatch.setattr(local.subprocess, "Popen", start)
    engine = LocalEngine(8, SweepFolder(tmp_path), devices=2, share=0.225)
    engine._hire(8)
    assert [device for _, device in told] == ["0", "1"] * 4
    assert all(share == ["0.225"] for share, _ in told)
    lost = engine._crew.pop(3)
    lost.connection.close()
    engine._hire(8)
    assert told[-1][1] == "1"
    assert engine._crew[-1].seat == 3
    engine.close()


def test_a_worker_holds_itself_to_its_share_before_it_works(monkeypatch):
    import torch

    cuda = Recorder()
    monkeypatch.setattr(torch, "cuda", cuda)
    ours, theirs = os.pipe()
    monkeypatch.setattr(sys, "argv", ["worker", str(ours), "0.125"])
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker, "hear_sigterm", lambda: None)
    monkeypatch.setattr(worker.threading, "Thread", lambda **_: SimpleNamespace(start=lambda: None))

    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(worker.queue, "SimpleQueue", lambda: SimpleNamespace(get=stop))
    worker.main()
    os.close(theirs)
    assert cuda.limits == [(0.125, 0)]


def ray_of(gpus: float) -> SimpleNamespace:
    nodes = [{"Alive": True, "Resources": {"CPU": 16.0, "GPU": gpus}}]
    return SimpleNamespace(
        init=lambda **_: None,
        cluster_resources=lambda: nodes[0]["Resources"],
        nodes=lambda: nodes,
        shutdown=lambda: None,
    )


@pytest.mark.parametrize(
    ("share", "stated", "workers", "needs"),
    [
        (None, None, 8, 1.0),
        (None, 0.5, 8, 0.5),
        ("auto", None, 8, 0.225),
        ("auto", None, 2, 1.0),
        ("auto", 0.5, 8, 0.5),
        (0.25, 0.5, 8, 0.25),
    ],
)
def test_ray_is_asked_for_parts_of_a_gpu(tmp_path, monkeypatch, share, stated, workers, needs):
    monkeypatch.setitem(sys.modules, "ray", ray_of(2.0))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    resources = Resources(num_gpus=stated)
    engine = RayEngine(workers, SweepFolder(tmp_path), resources, 1, True, share)
    engine.prepare()
    assert engine._gpus() == pytest.approx(needs)
    engine.close()


def test_a_ray_task_on_a_part_of_a_gpu_bounds_its_memory(tmp_path, monkeypatch):
    import torch

    cuda = Recorder()
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(ray_engine, "work_on", lambda assignment: assignment)
    for gpus in (0.25, 1.0, 0.0, 2.0):
        ray_engine._run_on_node("point", str(tmp_path), "apart", gpus)  # type: ignore[arg-type]
    assert cuda.limits == [(0.25, 0)]


def test_a_share_of_nothing_is_refused_before_anything_is_written(write_sweep, tmp_path):
    spec = write_sweep(tmp_path / "s.yaml", more={"runtime.device": "cpu"})
    for engine in ("local", "ray"):
        with pytest.raises(ConfigError, match=r"--device-share: 0\.5 - no point .*runtime\.threads"):
            run_sweep(spec, engine=engine, device_share=0.5, out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--device-share: '2'"):
        run_sweep(spec, device_share="2", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
