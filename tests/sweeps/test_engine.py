"""Sweeps worked on for real: kill -9, errors, extension, sharing, a full disk; the same numbers always."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privhier import session as job
from privhier.errors import CheckpointError, ConfigError
from privhier.evaluation.result import Result
from privhier.storage.sealed import Sealed
from privhier.sweeps.assignment import Assignment, work_on
from privhier.sweeps.job import run_sweep
from privhier.sweeps.progress import Standing
from privhier.sweeps.publish import publish
from privhier.sweeps.spec import load_sweep
from privhier.sweeps.state import SweepFolder

DRIVER = """
import sys
from pathlib import Path
from privhier.sweeps.job import run_sweep
run_sweep(sys.argv[1], workers=int(sys.argv[2]), out=Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def spec(write_sweep, tmp_path_factory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("spec") / "tiny.yaml")


@pytest.fixture(scope="module")
def finished(spec, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "finished"
    summary = run_sweep(spec, workers=1, out=out)
    assert (summary.done, summary.before, summary.exit_code) == (4, 0, 0)
    return out


def statuses(out: Path) -> dict[str, str]:
    try:
        rows = json.loads((out / "points.json").read_text())["points"]
    except FileNotFoundError:
        return {}
    return {row["id"]: row["status"] for row in rows}


def written(out: Path) -> dict[str, int]:
    paths = (out / "points").glob("*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_point_has_the_numbers_of_an_ordinary_run(spec, finished, numbers, tmp_path):
    """Sharing changes nothing: this run trains its own reference and attacks the raw images itself."""
    point = load_sweep(spec).points()[3]
    alone = tmp_path / "points" / point.id
    job.run(job.open_session(point.config, alone), command="privhier run")
    assert numbers(tmp_path)[point.id] == numbers(finished)[point.id]
    assert not (alone / "references" / "open").is_symlink()


def test_references_and_raw_image_attacks_are_computed_once_a_seed(finished):
    shared = finished / "shared"
    assert len(list((shared / "references").iterdir())) == 2
    assert len(list((shared / "raw_image").iterdir())) == 2
    assert len(list((shared / "training").iterdir())) == 4 + 2
    trained = [
        Result.read(path).timing["train_open"] > 0 for path in (finished / "points").glob("*/result.json")
    ]
    assert sorted(trained) == [False, False, True, True]
    for point in (finished / "points").iterdir():
        assert (point / "references" / "open" / "training.json").exists()
        assert list((point / "attacks" / "raw_image").rglob("*.npz"))


def test_a_second_start_does_nothing(spec, finished):
    before = written(finished)
    seen: list[Standing] = []
    summary = run_sweep(spec, out=finished, progress=seen.append)
    assert (summary.done, summary.before, summary.total) == (4, 4, 4)
    assert str(seen[-1]) == "4 points: 4 done, 0 running, 0 failed"
    assert written(finished) == before


@pytest.mark.slow
def test_kill_9_of_a_worker_and_of_the_parent_loses_and_repeats_nothing(spec, finished, numbers, tmp_path):
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-P", "-c", DRIVER, spec, "2", out])
    try:
        until(lambda: any((out / "points").glob("*/ledger.jsonl")))
        first = children(process)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        until(lambda: "done" in statuses(out).values())
        assert process.poll() is None, "the loss of a worker does not end the sweep"
        crew = children(process)
    finally:
        process.kill()
        process.wait()
    until(lambda: not any(alive(pid) for pid in [*first, *crew]), 20)
    left = statuses(out)
    done = written(out)
    assert "failed" not in left.values()
    assert len(done) < 4, "killed half-way"
    summary = run_sweep(spec, workers=2, out=out)
    assert (summary.done, summary.exit_code) == (4, 0)
    assert 1 <= summary.before < 4
    for name in (name for name, status in left.items() if status == "done"):
        assert written(out)[name] == done[name], "a finished point was computed again"
    assert numbers(out) == numbers(finished)
    assert set(statuses(out).values()) == {"done"}
    frontiers = []
    for folder in (out, finished):
        page, notes = publish(folder)
        assert page.exists()
        assert not [note for note in notes if "MLflow" in note]
        frontiers.append((folder / "frontier.json").read_text())
    assert frontiers[0] == frontiers[1]


def hear_ctrl_c() -> None:
    """A test run in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_leaves_no_worker_and_no_running_point(spec, tmp_path):
    out = tmp_path / "stopped"
    command = [sys.executable, "-P", "-c", DRIVER, spec, "1", out]
    with subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c) as process:
        try:
            until(lambda: any((out / "points").glob("*/config.yaml")))
            crew = children(process)
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=240)
        finally:
            process.kill()  # where it did not end: left running, it would fail the next test as well
    assert b"KeyboardInterrupt" in message
    assert not any(alive(pid) for pid in crew)
    assert set(statuses(out).values()) <= {"pending", "done"}


def test_a_failed_point_keeps_its_error_and_the_rest_goes_on(write_sweep, tmp_path):
    few = {"dataset.options.images": 6, "dataset.options.identities": 2}
    variants = {"few": few, "many": {"dataset.options.images": 160}}
    axes = [{"name": "data", "variants": variants}]
    path = write_sweep(tmp_path / "s.yaml", axes=axes, seeds=[0], more={"evaluation.references": []})
    out = tmp_path / "out"
    summary = run_sweep(path, workers=1, out=out)
    assert (summary.done, summary.total, summary.exit_code) == (1, 2, 1)
    ((label, error),) = summary.failed
    assert label == "data=few seed=0"
    assert "DataError" in error
    assert any("failed: data=few seed=0: DataError" in line for line in summary.lines())
    failed = next(row for row in json.loads((out / "points.json").read_text())["points"] if row["error"])
    kept = json.loads((out / "points" / failed["id"] / "error.json").read_text())
    assert kept["type"] == "DataError"
    assert "Traceback" in kept["traceback"]
    assert kept["seconds"] >= 0
    again = run_sweep(path, workers=1, out=out)
    assert (again.before, len(again.failed)) == (1, 1)


def test_an_axis_grows_and_only_the_new_points_are_computed(write_sweep, spec, finished, numbers, tmp_path):
    axes = [{"key": "release.sigma", "values": [0.3, 0.5]}]
    before = written(finished)
    old = numbers(finished)
    summary = run_sweep(write_sweep(tmp_path / "more.yaml", axes=axes, seeds=[0]), workers=1, out=finished)
    assert (summary.done, summary.before, summary.total) == (2, 1, 2)
    assert {name: written(finished)[name] for name in before} == before
    assert len(statuses(finished)) == 5, "points that the sweep no longer names are kept"
    assert {name: numbers(finished)[name] for name in old} == old


def test_another_sweep_or_a_bad_argument_changes_nothing(write_sweep, finished, tmp_path):
    before = {path: path.read_bytes() for path in finished.glob("*.*")}
    with pytest.raises(CheckpointError, match="another sweep"):
        run_sweep(write_sweep(tmp_path / "s.yaml", more={"release.clip": 9.0}), out=finished)
    with pytest.raises(ConfigError, match="--workers"):
        run_sweep(write_sweep(tmp_path / "t.yaml"), out=finished, workers=0)
    with pytest.raises(ConfigError, match="--engine"):
        run_sweep(write_sweep(tmp_path / "t.yaml"), out=finished, engine="slurm")  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in finished.glob("*.*")} == before


@pytest.mark.slow
def test_points_that_differ_only_in_the_attackers_share_training_and_releases(write_sweep, numbers, tmp_path):
    axes = [{"key": "attacks.attribute", "values": [["logistic_regression"], ["mlp"]]}]
    spec = write_sweep(tmp_path / "s.yaml", axes=axes, seeds=[0])
    run_sweep(spec, workers=1, out=tmp_path / "out")
    first, second = (tmp_path / "out" / "points" / point.id for point in load_sweep(spec).points())
    assert (first / "checkpoint.pt").exists()
    assert not (second / "checkpoint.pt").exists()
    assert (first / "releases" / "test.npy").samefile(second / "releases" / "test.npy")
    assert (first / "ledger.jsonl").read_bytes() == (second / "ledger.jsonl").read_bytes()
    assert not (first / "ledger.jsonl").samefile(second / "ledger.jsonl")
    point = load_sweep(spec).points()[1]
    alone = tmp_path / "alone" / "points" / point.id
    job.run(job.open_session(point.config, alone), command="privhier run")
    assert numbers(tmp_path / "alone")[point.id] == numbers(tmp_path / "out")[point.id]


def test_a_full_disk_fails_the_point_and_loses_nothing(spec, finished, numbers, tmp_path, monkeypatch):
    point = load_sweep(spec).points()[0]
    out = tmp_path / "full"
    assignment = Assignment(
        id=point.id,
        config_hash=point.config_hash,
        config=point.config.model_dump(mode="json"),
        sweep=str(out),
    )

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Sealed, "write_array", full)
    ending = work_on(assignment)
    assert ending.status == "failed"
    assert ending.error is not None
    assert ending.error["type"] == "OSError"
    assert "No space left" in ending.error["message"]
    folder = SweepFolder(out).point(point.id)
    assert json.loads((folder.root / "error.json").read_text()) == ending.error
    assert folder.checkpoint.exists()
    monkeypatch.undo()
    assert work_on(assignment).status == "done"
    assert not (folder.root / "error.json").exists()
    assert numbers(out)[point.id] == numbers(finished)[point.id]


@pytest.mark.slow
def test_tracked_points_are_nested_under_the_sweep(write_sweep, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    from privhier.tracking.sweep import log_frontier

    more = {"tracking.enabled": True, "evaluation.references": []}
    spec = write_sweep(tmp_path / "s.yaml", more=more, seeds=[0])
    out = tmp_path / "runs" / "tracked"
    assert run_sweep(spec, workers=2, out=out).exit_code == 0
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("privhier")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    points = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in points) == ["sigma=0.1", "sigma=0.3"]
    assert parent.info.run_name == "sweep tiny"
    assert {run.data.tags["kind"] for run in [parent, *points]} == {"sweep", "point"}
    assert {run.info.status for run in [parent, *points]} == {"FINISHED"}
    assert parent.data.metrics == {"points_done": 2.0, "points_failed": 0.0}
    assert all("utility_mean/auc" in run.data.metrics for run in points), points[0].data.metrics
    (tmp_path / "frontier.json").write_text("{}")
    assert log_frontier(out, [tmp_path / "frontier.json"], {"hypervolume/male": 0.5}) is None
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["frontier.json"]
    longer = [{"key": "release.sigma", "values": [0.1, 0.3, 0.5]}]
    run_sweep(write_sweep(tmp_path / "m.yaml", more=more, seeds=[0], axes=longer), workers=1, out=out)
    again = client.search_runs([experiment.experiment_id])
    assert len([run for run in again if "mlflow.parentRunId" not in run.data.tags]) == 1
    assert len([r for r in again if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]) == 3
