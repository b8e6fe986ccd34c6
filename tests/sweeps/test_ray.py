"""The ray engine: the local engine's numbers, lost workers, clusters that are not there."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from privhier.errors import ConfigError
from privhier.sweeps.assignment import Assignment
from privhier.sweeps.job import run_sweep
from privhier.sweeps.ray_engine import EngineError, RayEngine, run_apart, unpack
from privhier.sweeps.spec import Resources, load_sweep
from privhier.sweeps.state import SweepFolder, is_done


def engine(tmp_path: Path, **resources: object) -> RayEngine:
    return RayEngine(1, SweepFolder(tmp_path / "s"), Resources.model_validate(resources), 1, False)


def test_a_node_without_the_heads_folder_sends_the_point(write_sweep, numbers, tmp_path):
    spec = write_sweep(tmp_path / "s.yaml", seeds=[0])
    point = load_sweep(spec).points()[0]
    head = SweepFolder(tmp_path / "head")
    assignment = Assignment(
        id=point.id,
        config_hash=point.config_hash,
        config=point.config.model_dump(mode="json"),
        sweep=str(head.root),
    )
    ending, archive = run_apart(assignment, tmp_path / "node")
    assert ending.status == "done"
    assert not head.root.exists()
    unpack(archive, head.point(point.id).root)
    assert is_done(head.point(point.id), point.config_hash)
    assert numbers(head.root) == numbers(tmp_path / "node" / "head")
    names = {path.name for path in head.point(point.id).root.iterdir()}
    assert {"ledger.jsonl", "edge.safetensors", "attacks", "references"} <= names
    assert "checkpoint.pt" not in names
    assert not [path for path in head.root.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:9", "cannot be reached"),
        ("ray://127.0.0.1:9", "cannot be reached"),
        ("nonsense", "joined"),
    ],
)
def test_an_address_that_does_not_answer_is_named_within_seconds(tmp_path, address, words):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    started = time.monotonic()
    with pytest.raises(EngineError, match=rf"Ray address: '{address}' - .*{words}.*RAY_ADDRESS"):
        engine(tmp_path, address=address).prepare()
    assert time.monotonic() - started < 30


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"privhier\[ray\]"):
        engine(tmp_path).prepare()


@pytest.mark.slow
def test_ray_gives_the_local_numbers_and_survives_a_lost_worker(
    write_sweep, numbers, tmp_path, repository, monkeypatch
):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    psutil = pytest.importorskip("psutil")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(repository)  # the folder datasets/ must not shadow the library of that name
    spec = write_sweep(tmp_path / "s.yaml")
    run_sweep(spec, workers=1, out=tmp_path / "local")
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            if any((tmp_path / "ray" / "points").glob("*/ledger.jsonl")):
                for process in psutil.Process().children(recursive=True):
                    if "_run_on_node" in " ".join(process.cmdline() or [process.name()]):
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)
                        break
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    summary = run_sweep(spec, engine="ray", workers=2, out=tmp_path / "ray")
    assert killed, "a worker was lost"
    assert (summary.done, summary.exit_code) == (4, 0)
    assert numbers(tmp_path / "ray") == numbers(tmp_path / "local")


@pytest.mark.slow
def test_a_point_larger_than_any_node_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match=r"ray.num_gpus: 64.*the largest has 0"):
        engine(tmp_path, num_gpus=64).prepare()
