"""MLflow's page: what it refuses, what it says it opens on, and that its server ends with it."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from privhier.errors import TrackingError
from privhier.tracking import page as tracking_page
from privhier.tracking.page import serve_ui
from privhier.tracking.sqlite import sqlite_uri
from privhier.tracking.store import experiment_id, opened
from privhier.tracking.view import VIEW

free_port = runpy.run_path(str(Path(__file__).parents[1] / "process" / "ports.py"))["free_port"]


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Path:
    """A folder with a store that holds the experiment."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = sqlite_uri(tmp_path / "mlflow.db")
    with opened(uri):
        from mlflow import MlflowClient

        experiment_id(MlflowClient(tracking_uri=uri, registry_uri=uri), "privhier", uri)
    return tmp_path


def test_it_needs_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackingError, match="--store"):
        serve_ui(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:hunter2@tracking.example:5000")
    with pytest.raises(TrackingError, match="Open that address") as caught:
        serve_ui(tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\0" * 200])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    (tmp_path / "mlartifacts").mkdir()
    with pytest.raises(TrackingError, match="must be an MLflow store") as caught:
        serve_ui(tmp_path, port=free_port())
    assert caught.value.key == "--store"


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-P", "-m", "privhier.cli.main", "ui", "--store", str(tmp_path)]
        command += ["--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert f"--port: {port}" in done.stderr
    assert "in use" in " ".join(done.stderr.split())


def test_a_page_that_ends_by_itself_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    server = tmp_path / "server"
    server.write_text("#!/bin/sh\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.setattr(tracking_page.sys, "executable", str(server))
    with pytest.raises(TrackingError, match="ended by itself") as caught:
        serve_ui(tmp_path, port=free_port())
    assert caught.value.value == 3


def test_it_says_where_the_tradeoff_is(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = store / "server"
    server.write_text("#!/bin/sh\nexit 0\n")
    server.chmod(0o755)
    monkeypatch.setattr(tracking_page.sys, "executable", str(server))
    port, told = free_port(), list[str]()
    serve_ui(store, port=port, tell=told.append)
    page = f"http://127.0.0.1:{port}/"
    assert told == [
        f"MLflow's page, in some seconds: {page}",
        f"utility against leakage (privhier): {page}#/experiments/1/runs"
        f"?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}",
    ]


def gone(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[bytes], int]]]:
    """Start a shell script under a keeper; the keeper, and the process that the script started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> tuple[subprocess.Popen[bytes], int]:
        marker = tmp_path / "worker"
        text = f"sleep 60 & echo $! > {marker}.new; mv {marker}.new {marker}; {script}"
        command = [sys.executable, "-P", "-m", "privhier.tracking.keeper", "sh", "-c", text]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        assert until(marker.exists, 60)
        return started[0], int(marker.read_text())

    yield start
    for process in started:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(60)


def test_a_keeper_ends_what_was_started_when_its_line_closes(
    keeper: Callable[[str], tuple[subprocess.Popen[bytes], int]],
) -> None:
    process, worker = keeper("wait")
    assert not gone(worker)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert gone(worker)


def test_a_keeper_that_is_told_to_stop_leaves_nothing(
    keeper: Callable[[str], tuple[subprocess.Popen[bytes], int]],
) -> None:
    process, worker = keeper("wait")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert gone(worker)


def test_a_keeper_says_how_its_command_ended_and_ends_what_that_left(
    keeper: Callable[[str], tuple[subprocess.Popen[bytes], int]],
) -> None:
    process, worker = keeper("exit 7")
    assert process.wait(60) == 7
    assert gone(worker)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def servers(port: int) -> list[int]:
    """Processes of a page on this port: the command line names it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(port).encode() in words and not gone(int(path.parent.name)):
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name
)
def test_the_server_ends_with_the_verb(store: Path, number: signal.Signals) -> None:
    """MLflow's own server, closed, told to stop, left by its terminal, and killed without a word."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "privhier.cli.main", "ui", "--store", str(store)]
    with subprocess.Popen(
        [*command, "--port", str(port)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert until(lambda: answers(port), 180)
        assert len(servers(port)) > 1
        os.kill(process.pid, number)
        status = process.wait(90)
    assert until(lambda: not servers(port), 60), servers(port)
    assert not answers(port)
    assert status == (-number if number in (signal.SIGHUP, signal.SIGKILL) else 0)
