"""Which commit a run came from, as MLflow's own tag: through the very functions that a run goes through."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privhier.config import RunConfig
from privhier.evaluation.result import Reconstruction, Score
from privhier.process.source import git_state
from privhier.session import open_session, start_tracking
from privhier.tracking.source import source_tags
from privhier.tracking.sweep import ParentRun

COMMIT = "mlflow.source.git.commit"


def git(folder: Path, *arguments: str) -> str:
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *me, *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, and a store beside it; the process is in it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "notes.txt").write_text("first\n")
    git(folder, "add", "notes.txt")
    git(folder, "commit", "--quiet", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def runs(checkout: Path, experiment: str) -> dict[str, dict[str, Any]]:
    """Tags of every run in the store, by the run's name."""
    from mlflow import MlflowClient

    store = MlflowClient(tracking_uri=f"sqlite:///{checkout.parent / 'mlflow.db'}")
    where = store.get_experiment_by_name(experiment)
    return {found.info.run_name: found.data.tags for found in store.search_runs([where.experiment_id])}


@pytest.fixture
def config(small_config: Callable[..., RunConfig]) -> RunConfig:
    return small_config("tracked", images=160, size=16)


def start(config: RunConfig, checkout: Path) -> dict[str, dict[str, Any]]:
    tracker = start_tracking(open_session(config, checkout.parent / "run"))
    tracker.log_reconstruction("decoder", Reconstruction(ssim=Score(value=0.3, low=0.2, high=0.4, n=9)))
    tracker.finish()
    assert tracker.failure is None
    return runs(checkout, config.tracking.experiment)


def test_a_run_and_what_is_nested_in_it_name_the_commit(config: RunConfig, checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert len(head) == 40
    found = start(config, checkout)
    assert {name.partition(" ")[0]: tags[COMMIT] for name, tags in found.items()} == {
        "tracked": head,
        "reconstruction:": head,
    }
    (main,) = [tags for tags in found.values() if tags["kind"] == "run"]
    assert main["git_commit"] == head == git_state()["commit"]
    assert main["git_dirty"] == "False"


def test_a_sweeps_run_names_the_commit_and_what_was_changed(config: RunConfig, checkout: Path) -> None:
    (checkout / "notes.txt").write_text("second\n")
    folder = checkout.parent / "sweep"
    folder.mkdir()
    parent = ParentRun(folder, config.tracking.experiment, name="s", digest="d", params={"seeds": [0]})
    assert parent.finish("FINISHED", {}) is None
    (tags,) = runs(checkout, config.tracking.experiment).values()
    assert tags[COMMIT] == git(checkout, "rev-parse", "HEAD")
    assert tags["git_dirty"] == "True"


def test_outside_a_repository_no_commit_is_named(
    config: RunConfig, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent.parent))
    monkeypatch.chdir(checkout.parent)
    assert source_tags() == {"mlflow.source.name": "privhier"}
    for tags in start(config, checkout).values():
        assert not [key for key in tags if "git" in key]


def test_a_repository_without_a_commit_names_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = checkout.parent / "fresh"
    fresh.mkdir()
    git(fresh, "init", "--quiet")
    monkeypatch.chdir(fresh)
    assert source_tags() == {"mlflow.source.name": "privhier", "git_dirty": "False"}
