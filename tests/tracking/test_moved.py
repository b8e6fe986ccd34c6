"""A store that is moved or copied with its runs: its artifacts are found, new ones go where it is now."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from privhier.config import RunConfig
from privhier.evaluation.result import Result
from privhier.storage.sealed import Sealed
from privhier.tracking import tracker as tracking
from privhier.tracking.moved import follow
from privhier.tracking.sqlite import sqlite_uri
from privhier.tracking.store import opened
from privhier.tracking.sweep import ParentRun, log_frontier

CONFIG = {
    "name": "moved",
    "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
    "schedule": {"joint_epochs": 1},
}


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def log(run: Path, result: Result) -> None:
    (run / "figures").mkdir(parents=True, exist_ok=True)
    (run / "figures" / "tradeoff.png").write_bytes(b"a picture")
    tracker = tracking.open_tracker(RunConfig.model_validate(CONFIG), run)
    tracker.log_tail(torch.nn.Linear(8, 2), np.zeros((2, 8), np.float32))
    tracker.log_result(result)
    tracker.log_artifacts(run)
    tracker.finish()
    assert tracker.failure is None


@pytest.fixture
def runs(tmp_path: Path, empty_store: Path, result: Result) -> Path:
    folder = tmp_path / "a folder" / "50%"
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow.db")
    log(folder / "one", result)
    return folder


def client(runs: Path) -> Any:
    from mlflow import MlflowClient

    uri = sqlite_uri(runs / "mlflow.db")
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def run_id(run: Path) -> str:
    return str(json.loads((run / "tracking.json").read_text())["run_id"])


def addresses(runs: Path) -> list[str]:
    """Every address of an artifact that the experiment's rows hold."""
    with closing(sqlite3.connect(runs / "mlflow.db")) as database:
        rows = [
            *database.execute("select artifact_location from experiments where name = 'privhier'"),
            *database.execute("select artifact_uri from runs"),
            *database.execute("select artifact_location from logged_models"),
        ]
    return [address for (address,) in rows]


def test_a_moved_folder_finds_its_pictures_and_its_models(
    runs: Path, tmp_path: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    there = tmp_path / "elsewhere"
    runs.rename(there)
    with opened(sqlite_uri(there / "mlflow.db")):
        pass
    assert len(addresses(there)) == 3
    assert {address.startswith((there / "mlartifacts").as_uri()) for address in addresses(there)} == {True}
    picture = client(there).download_artifacts(run_id(there / "one"), "figures/tradeoff.png")
    assert Path(picture).read_bytes() == b"a picture"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(there / "mlflow.db"))
    model = mlflow.pyfunc.load_model(f"runs:/{run_id(there / 'one')}/tail")
    assert model.predict(np.zeros((3, 8), np.float32)).shape == (3, 2)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    log(there / "two", result)  # a new run goes where the store is now
    assert not runs.exists()
    picture = client(there).download_artifacts(run_id(there / "two"), "figures/tradeoff.png")
    assert Path(picture).read_bytes() == b"a picture"


def test_a_copy_holds_its_own(runs: Path, tmp_path: Path) -> None:
    before = addresses(runs)
    shutil.copytree(runs, tmp_path / "copy")
    assert follow(tmp_path / "copy" / "mlflow.db") == 1
    assert follow(tmp_path / "copy" / "mlflow.db") == 0
    assert follow(runs / "mlflow.db") == 0
    assert addresses(runs) == before
    assert not set(addresses(tmp_path / "copy")) & set(before)
    shutil.rmtree(runs)
    picture = client(tmp_path / "copy").download_artifacts(
        run_id(tmp_path / "copy" / "one"), "figures/tradeoff.png"
    )
    assert Path(picture).read_bytes() == b"a picture"


def test_a_database_without_its_artifacts_stays_as_it_is(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copy(runs / "mlflow.db", tmp_path / "bare")
    assert follow(tmp_path / "bare" / "mlflow.db") == 0
    assert addresses(tmp_path / "bare") == addresses(runs)


def test_what_lies_at_the_old_place_only_is_still_found_there(
    runs: Path, tmp_path: Path, result: Result
) -> None:
    """Half of it was copied: each run is led to where its own artifacts are."""
    log(runs / "two", result)
    shutil.copytree(runs, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "mlartifacts" / run_id(runs / "two"))
    follow(tmp_path / "copy" / "mlflow.db")
    found = {
        name: client(tmp_path / "copy").get_run(run_id(runs / name)).info.artifact_uri
        for name in ("one", "two")
    }
    assert found["one"].startswith((tmp_path / "copy").as_uri())
    assert found["two"].startswith(runs.as_uri())


@pytest.mark.parametrize("noted", ["as we write it", "as we wrote it"])
def test_a_moved_sweep_goes_on_in_its_own_run(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, noted: str
) -> None:
    """The sweep's run is found beside it, and nothing is written where it was."""

    def parent(folder: Path) -> ParentRun:
        return ParentRun(folder, "privhier", name="s", digest="d", params={"seeds": [0]})

    (tmp_path / "before" / "front").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "before" / "mlflow.db")
    first = parent(tmp_path / "before" / "front")
    if noted == "as we wrote it":
        state = {"run_id": first.run_id, "store": first.store}
        Sealed(tmp_path / "before" / "front").write_json(
            tmp_path / "before" / "front" / "tracking.json", state
        )
    (tmp_path / "before").rename(tmp_path / "after")
    front = tmp_path / "after" / "front"
    assert parent(front).run_id == first.run_id
    (front / "frontier_male.svg").write_text("<svg/>")
    assert log_frontier(front, [front / "frontier_male.svg"], {"hypervolume/male": 0.5}) is None
    found = client(tmp_path / "after").get_run(first.run_id)
    assert found.data.metrics["hypervolume/male"] == 0.5
    assert "get-artifact?path=frontier_male.svg" in found.data.tags["mlflow.note.content"]
    assert found.data.tags["kind"] == "sweep"
    assert not (tmp_path / "before").exists()


def test_a_sweep_elsewhere_is_found_by_its_address(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_TRACKING_URI named the store when it was begun, and need not when its page is written."""
    (tmp_path / "central").mkdir()
    (tmp_path / "runs" / "front").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "central" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(tmp_path / "central" / "mlflow.db"))
    front = tmp_path / "runs" / "front"
    run = ParentRun(front, "privhier", name="s", digest="d", params={"seeds": [0]}).run_id
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert log_frontier(front, [], {"hypervolume/male": 0.5}) is None
    assert client(tmp_path / "central").get_run(run).data.metrics == {"hypervolume/male": 0.5}
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    "location", ["mlflow-artifacts:/1", "s3://bucket/mlartifacts", "/somewhere/mlruns", None]
)
def test_other_peoples_addresses_are_left_alone(runs: Path, location: str | None) -> None:
    with closing(sqlite3.connect(runs / "mlflow.db")) as database, database:
        database.execute("update experiments set artifact_location = ?", (location,))
    before = addresses(runs)
    assert follow(runs / "mlflow.db") == 0
    assert addresses(runs) == before
