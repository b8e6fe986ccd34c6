"""Where MLflow's store lies, its first opening by several at once, and its page."""

from __future__ import annotations

import os
import runpy
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from privhier.config import RunConfig
from privhier.errors import TrackingError
from privhier.tracking import sqlite as tracking_sqlite
from privhier.tracking import store as tracking_store
from privhier.tracking import tracker as tracking
from privhier.tracking.audit import stores_of
from privhier.tracking.sqlite import patient, sqlite_path, sqlite_uri

free_port = runpy.run_path(str(Path(__file__).parents[1] / "process" / "ports.py"))["free_port"]
ODD = ["plain", "a b", "what?", "what?mode=ro", "50%", "%41", "%2Fx", "#1", "a&b=c", "日本", "a@b:c"]
ODD += ['Zoë\'s "runs"']


def config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "stored",
            "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
            "schedule": {"joint_epochs": 1},
        }
    )


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("name", ODD)
def test_every_address_names_the_file_it_was_made_for(tmp_path: Path, name: str) -> None:
    from sqlalchemy.engine import make_url

    path = tmp_path / name / "mlflow.db"
    for uri in (sqlite_uri(path), patient(sqlite_uri(path))):
        assert sqlite_path(uri) == path
        assert make_url(uri).database == str(path)
    assert make_url(patient(sqlite_uri(path))).query == {"timeout": "60"}
    assert patient("sqlite:////x.db?timeout=5") == "sqlite:////x.db?timeout=5"


def test_what_is_no_file_is_none() -> None:
    for uri in (
        "http://host:5000",
        "postgresql://u:p@host/db",
        "sqlite:///:memory:",
        "file:///x",
        "databricks",
    ):
        assert sqlite_path(uri) is None
        assert patient(uri) == uri or uri.startswith("sqlite")


@pytest.mark.parametrize("name", ["what? 50%41 #1", 'Zoë\'s "runs" & b=c'])
def test_the_store_lies_beside_the_run_whatever_the_folder_is_called(
    tmp_path: Path, empty_store: Path, name: str
) -> None:
    run = tmp_path / name / "run"
    run.mkdir(parents=True)
    shutil.copy(empty_store, run.parent / "mlflow.db")
    (run / "config.yaml").write_text("name: stored\n")
    tracker = tracking.open_tracker(config(), run)
    tracker.log_artifacts(run)
    tracker.finish()
    assert tracker.failure is None
    assert [path.name for path in tmp_path.iterdir()] == [name]  # no stray file or folder
    assert list((run.parent / "mlartifacts").rglob("config.yaml"))
    with sqlite3.connect(run.parent / "mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)
    assert list(stores_of(run)) == [sqlite_uri(run.parent / "mlflow.db")]


def test_one_makes_the_store_while_others_wait(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    path, made = tmp_path / "mlflow.db", list[str]()

    def slowly(tracking_uri: str, registry_uri: str) -> None:
        made.append(tracking_uri)
        fresh = sqlite_path(tracking_uri)
        assert fresh is not None
        content = empty_store.read_bytes()
        fresh.write_bytes(content[:1000])
        time.sleep(0.2)
        fresh.write_bytes(content)

    def open_it() -> bytes:
        tracking_sqlite.create_whole(path)
        return path.read_bytes()

    monkeypatch.setattr(mlflow, "MlflowClient", slowly)
    with ThreadPoolExecutor(3) as pool:
        seen = [future.result() for future in [pool.submit(open_it) for _ in range(3)]]
    assert len(made) == 1
    assert seen == [empty_store.read_bytes()] * 3


def test_a_run_that_logs_its_data_set_in_the_same_moment_as_another_loses_nothing(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow looks for the row, then inserts it: the second to insert fails (four processes at once did)."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    trackers = [tracking.open_tracker(config(), tmp_path / name) for name in ("run", "other")]
    log_inputs, lost = MlflowClient.log_inputs, list[str]()

    def once(client: MlflowClient, run_id: str, inputs: object) -> None:
        if not lost:
            lost.append(run_id)
            log_inputs(client, run_id_of_other, inputs)
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id")
        log_inputs(client, run_id, inputs)

    run_id_of_other = trackers[1].run_id
    monkeypatch.setattr(MlflowClient, "log_inputs", once)
    trackers[0].log_dataset("faces", "abc", {"train": 3})
    for tracker in trackers:
        tracker.finish()
    assert lost == [trackers[0].run_id]
    assert [tracker.failure for tracker in trackers] == [None, None]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select count(*) from datasets").fetchone() == (1,)
        assert database.execute("select count(*) from inputs where source_type = 'DATASET'").fetchone() == (
            2,
        )


@pytest.mark.slow
def test_three_at_once_open_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    code = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from privhier.tracking import tracker as tracking
from privhier.config import RunConfig
data = {"name": "stored", "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
        "schedule": {"joint_epochs": 1}}
run = Path(sys.argv[1])
run.mkdir()
print("ready", flush=True)
sys.stdin.readline()
tracking.open_tracker(RunConfig.model_validate(data), run).finish()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", code, str(tmp_path / f"run{number}")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select status, count(*) from runs group by 1").fetchall() == [
            ("FINISHED", 3)
        ]
        assert database.execute("select count(*) from experiments where name = 'privhier'").fetchone() == (1,)


def test_a_first_opening_that_is_killed_leaves_no_half_store(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    path = tmp_path / "mlflow.db"
    made: list[Path | None] = []

    def halfway(tracking_uri: str, registry_uri: str) -> None:
        fresh = sqlite_path(tracking_uri)
        assert fresh is not None
        made.append(fresh)
        assert not fresh.exists()  # what a killed process left is not built upon
        with sqlite3.connect(fresh) as database:
            database.execute("create table experiments (name text)")
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow, "MlflowClient", halfway)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tracking_sqlite.create_whole(path)
        assert not path.exists()
        (tmp_path / "mlflow.db.new").write_bytes(b"left by a killed process")
    assert made == [tmp_path / "mlflow.db.new"] * 2
    monkeypatch.setattr(
        mlflow, "MlflowClient", lambda **uris: shutil.copy(empty_store, sqlite_path(uris["tracking_uri"]))
    )
    tracking_sqlite.create_whole(path)
    assert path.read_bytes() == empty_store.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize("name", ["run", "what? 50%"])
def test_a_deleted_experiment_is_refused_with_the_way_back(
    tmp_path: Path, empty_store: Path, name: str
) -> None:
    from mlflow import MlflowClient

    run = tmp_path / name / "run"
    run.mkdir(parents=True)
    shutil.copy(empty_store, run.parent / "mlflow.db")
    uri = sqlite_uri(run.parent / "mlflow.db")
    with tracking_store.opened(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        number = client.create_experiment("privhier")
        client.delete_experiment(number)
    with pytest.raises(TrackingError, match="was deleted in MLflow") as caught:
        tracking.open_tracker(config(), run)
    assert caught.value.key == "tracking.experiment"
    assert caught.value.value == "privhier"
    assert f"mlflow experiments restore --experiment-id {number}" in caught.value.remedy
    assert "tracking.experiment=privhier-2" in caught.value.remedy
    # what the remedy says, said to a shell
    setting = caught.value.remedy.partition(": ")[2].partition(" mlflow")[0]
    shell = ["sh", "-c", f'{setting}; printf %s "$MLFLOW_TRACKING_URI"']
    address = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert sqlite_path(address) == run.parent / "mlflow.db"
    with tracking_store.opened(uri):
        client.restore_experiment(number)
    tracker = tracking.open_tracker(config(), run)
    tracker.finish()
    assert tracker.failure is None


def test_the_page_refuses_a_port_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-P",
            "-m",
            "privhier.cli.main",
            "ui",
            "--store",
            str(tmp_path),
            "--port",
            str(port),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert f"--port: {port}" in done.stderr
    assert "in use" in " ".join(done.stderr.split())


def test_a_page_that_ends_by_itself_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    server = tmp_path / "server"
    server.write_text("#!/bin/sh\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.setattr(tracking_store.sys, "executable", str(server))
    with pytest.raises(TrackingError, match="ended by itself") as caught:
        tracking.serve_ui(tmp_path, port=free_port())
    assert caught.value.value == 3


def test_closing_the_page_ends_the_processes_the_server_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    server, marker = tmp_path / "server", tmp_path / "worker"
    server.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {marker}.new; mv {marker}.new {marker}; wait\n")
    server.chmod(0o755)
    monkeypatch.setattr(tracking_store.sys, "executable", str(server))
    wait = subprocess.Popen.wait

    def closed(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is None and not interrupted:
            while not marker.exists():
                pass
            interrupted.append(True)
            raise KeyboardInterrupt
        return wait(process, timeout)

    interrupted: list[bool] = []
    monkeypatch.setattr(subprocess.Popen, "wait", closed)
    tracking.serve_ui(tmp_path, port=free_port())
    worker = int(marker.read_text())
    state = Path(f"/proc/{worker}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert os.getpid() != worker
