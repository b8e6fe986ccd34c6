"""The ray engine: the local engine's numbers, lost workers, clusters that are not there."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from privhier.errors import ConfigError
from privhier.sweeps import ray_engine
from privhier.sweeps.assignment import Assignment, Ending
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


class Cluster:
    """Stands for Ray: tasks end in the order they were given, with what ``endings`` says of their points."""

    def __init__(self, endings: dict[str, list[str]], rooms: list[int]) -> None:
        self.endings, self.rooms = endings, rooms
        self.given: list[tuple[float, str, str]] = []

    def shutdown(self) -> None:
        """Nothing to end."""

    def cluster_resources(self) -> dict[str, int]:
        return {"CPU": self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]}

    def wait(self, references: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int) -> tuple[Ending, None]:
        name = self.given[reference][1]
        return Ending(name, self.endings[name].pop(0)), None


class Told:
    """What a sweep is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, name: str) -> None:
        self.lines.append(f"{name} started")

    def put_back(self, name: str) -> None:
        self.lines.append(f"{name} put back")

    def ended(self, ending: Ending) -> None:
        self.lines.append(f"{ending.id} {ending.status}")


def played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endings: dict[str, list[str]], rooms: list[int]
) -> tuple[Cluster, Told]:
    cluster, told = Cluster(endings, rooms), Told()

    def give(assignment: Assignment, token: str, apart: str, gpus: float) -> int:
        cluster.given.append((time.monotonic(), assignment.id, apart))
        return len(cluster.given) - 1

    cluster.remote = lambda **needs: lambda function: SimpleNamespace(remote=give)
    (tmp_path / "s").mkdir(exist_ok=True)
    made = engine(tmp_path)
    made._ray = cluster
    made.run([Assignment(name, "", {}, str(tmp_path / "s")) for name in endings], told)
    made.close()
    return cluster, told


def test_a_point_that_another_process_still_holds_is_left_alone_for_a_while(tmp_path, monkeypatch):
    """Its node was lost, its worker not yet: asking at once would keep a cluster busy with nothing else."""
    monkeypatch.setattr(ray_engine, "BUSY_PAUSE", 0.4)
    cluster, told = played(tmp_path, monkeypatch, {"a": ["busy", "busy", "done"], "b": ["done"]}, [2])
    tries = [when for when, name, _ in cluster.given if name == "a"]
    assert len(tries) == 3
    assert min(later - before for before, later in itertools.pairwise(tries)) >= 0.4
    assert [line for line in told.lines if line.startswith("a")] == [
        "a started",
        "a put back",
        "a started",
        "a put back",
        "a started",
        "a done",
    ]
    assert told.lines.count("b done") == 1


def test_when_a_node_is_lost_fewer_points_are_said_to_be_at_work(tmp_path, monkeypatch):
    endings = {name: ["done"] for name in "abcd"}
    _, told = played(tmp_path, monkeypatch, endings, [3, 1])
    assert told.lines == [
        *("a started", "b started", "c started", "a done", "c put back"),
        *("b done", "c started", "c done", "d started", "d done"),
    ]


def test_a_node_works_in_a_folder_of_its_own_for_every_sweep_folder(tmp_path, monkeypatch):
    """Two folders of one name are two sweeps: neither takes over what a node has of the other."""
    places = []
    for folder in ("one", "two", "one"):
        (tmp_path / folder).mkdir(exist_ok=True)
        cluster, _ = played(tmp_path / folder, monkeypatch, {"a": ["done"]}, [1])
        places.append(cluster.given[0][2])
    assert places[0] == places[2] != places[1]
    assert all(Path(place).name == place for place in places)


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
