"""A cluster of two nodes, joined by its address: data cached once a node, and a node that is lost half-way.

Both nodes are of this machine, with caches of their own. ``apart``: the second one does not see the head's
sweep folder (it lies under a mount of the node's own), so it works in one of its own and sends what is done.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from privhier.sweeps.job import run_sweep

psutil = pytest.importorskip("psutil")
STORE = 80_000_000
"""Bytes of a node's object store; the least that Ray takes is 75 MiB."""


@dataclass
class Node:
    """A node of the cluster: the process that started it, and where its data lie decoded."""

    process: subprocess.Popen[bytes]
    cache: Path

    def family(self) -> list[Any]:
        try:
            node = psutil.Process(self.process.pid)
            return [node, *node.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def works(self) -> bool:
        """Whether a point is being worked on here."""
        names = []
        for process in self.family():
            try:
                names.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return any("_run_on_node" in name for name in names)

    def kill(self) -> None:
        family = self.family()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=20)
        self.process.wait(20)


@dataclass
class Cluster:
    """Two nodes of one processor each."""

    folder: Path
    hidden: Path | None
    nodes: list[Node] = field(default_factory=list)
    address: str = ""

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self._node(["--head", f"--port={port}", "--include-dashboard=false"], None)
        self._wait(1)
        self._node([f"--address={self.address}"], self.hidden)
        self._wait(2)

    def _node(self, how: list[str], hidden: Path | None) -> None:
        name = f"node{len(self.nodes)}"
        cache = self.folder / f"{name}-cache"
        command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", *how, "--num-cpus=1"]
        command += [f"--object-store-memory={STORE}", "--disable-usage-stats", "--block"]
        if hidden is not None:
            mount = f'mount -t tmpfs none "{hidden}" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
        environment = {**os.environ, "PRIVHIER_CACHE": str(cache), "TMPDIR": str(self.folder / name)}
        environment["RAY_TMPDIR"] = str(self.folder)
        (self.folder / name).mkdir()
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.nodes.append(Node(process, cache))

    def _wait(self, count: int) -> None:
        """Until so many nodes are there, as a process of its own sees it."""
        code = (
            "import sys, ray; ray.init(address=sys.argv[1], logging_level='error', log_to_driver=False);"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        deadline, said = time.monotonic() + 120, ""
        while time.monotonic() < deadline:
            done = subprocess.run(
                [sys.executable, "-P", "-c", code, self.address], capture_output=True, text=True, check=False
            )
            said = done.stdout.strip()
            if said == str(count):
                return
            time.sleep(0.5)
        logs = "\n".join(log.read_text()[-2000:] for log in self.folder.glob("node*.log"))
        raise AssertionError(f"{said!r} nodes where {count} were wanted\n{logs}")

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


@pytest.fixture(params=["shared", "apart"])
def cluster(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    for name in ("RAY_ADDRESS", "PRIVHIER_CACHE"):
        monkeypatch.delenv(name, raising=False)
    hidden = None
    if request.param == "apart":
        (tmp_path / "head").mkdir()
        hidden = tmp_path / "head"
        trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(hidden)]
        able = shutil.which("unshare") is not None
        if not able or subprocess.run(trial, check=False, capture_output=True).returncode:
            pytest.skip("no mounts of a process' own here: no node can be kept from the head's folder")
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: Ray's sockets lie in it
    made = Cluster(folder, hidden)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Noise in a folder with a table: data that are decoded, unlike drawn ones."""
    rng, folder = np.random.default_rng(0), tmp_path / "faces"
    folder.mkdir()
    lines = ["image,person,smiling,male"]
    for number in range(160):
        smiling, male = number % 2, number // 2 % 2
        pixels = rng.integers(0, 200, (24, 24, 3)) + np.array([40 * smiling, 40 * male, 0])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number // 4},{smiling},{male}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_two_nodes_finish_a_sweep_though_one_is_lost(
    cluster: Cluster,
    faces: Path,
    write_sweep: Callable[..., Path],
    numbers: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    axes = [{"key": "release.sigma", "values": [0.1, 0.2, 0.3]}]
    spec = write_sweep(tmp_path / "s.yaml", axes=axes, ray={"address": cluster.address})
    data = yaml.safe_load(spec.read_text())
    drawn = [key for key in data["overrides"] if key.startswith("dataset.options.")]
    data["overrides"] = {key: value for key, value in data["overrides"].items() if key not in drawn}
    data["overrides"] |= {"dataset.name": "folder", "dataset.root": str(faces)}
    data["overrides"]["dataset.options"] = {"identity": "person"}
    spec.write_text(yaml.safe_dump(data))
    out = tmp_path / "head" / "sweep"
    first, second = cluster.nodes
    begun: dict[Path, tuple[int, int]] = {}
    lost: list[bool] = []

    def watch() -> None:
        """Note every cache as soon as it is there; kill the second node while it works, after one point."""
        while not over.is_set():
            for file in cluster.folder.glob("node*-cache/folder-*/images.bin"):
                found = file.stat()
                begun.setdefault(file, (found.st_ino, found.st_mtime_ns))
            everywhere = len({file.parents[1] for file in begun}) == 2
            if everywhere and not lost and list(out.glob("points/*/result.json")) and second.works():
                second.kill()
                lost.append(True)
            time.sleep(0.05)

    over = threading.Event()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    seen: list[tuple[int, int, int]] = []
    try:
        summary = run_sweep(
            spec,
            engine="ray",
            out=out,
            progress=lambda state: seen.append((state.done, state.running, state.failed)),
        )
    finally:
        over.set()
        watcher.join()
    assert lost, "a node was lost while it worked"
    assert (summary.done, summary.total, summary.exit_code) == (6, 6, 0)
    assert first.process.poll() is None
    apart = list((cluster.folder / "node1").glob("privhier-sweeps-*/sweep/points/*"))
    assert bool(apart) == (cluster.hidden is not None)
    # every point once, whole, and in the index
    index = json.loads((out / "points.json").read_text())["points"]
    assert [row["status"] for row in index] == ["done"] * 6
    assert {path.name for path in (out / "points").iterdir()} == {row["id"] for row in index}
    assert not list(out.rglob("*.tmp"))
    assert not list(out.glob("points/*/error.json"))
    # decoded once a node, however many workers it had
    assert len(begun) == 2, begun
    for file, (inode, time_of) in begun.items():
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (inode, time_of)
    # and the numbers are those of one machine
    monkeypatch.setenv("PRIVHIER_CACHE", str(first.cache))
    run_sweep(spec, engine="local", workers=1, out=tmp_path / "alone")
    assert numbers(out) == numbers(tmp_path / "alone")
