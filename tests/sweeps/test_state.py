"""The sweep folder: whose it is, what is done, what is kept."""

from __future__ import annotations

import json

import pytest

from privhier.errors import CheckpointError, OutputError
from privhier.storage.locks import exclusive
from privhier.storage.sealed import Sealed
from privhier.sweeps.spec import load_sweep
from privhier.sweeps.state import Index, SweepFolder, is_done


@pytest.fixture
def sweep(write_sweep, tmp_path):
    return load_sweep(write_sweep(tmp_path / "s.yaml"))


def finish(folder: SweepFolder, point) -> None:
    run = folder.point(point.id)
    run.root.mkdir(parents=True, exist_ok=True)
    run.sealed.write_json(run.result, {"config_hash": point.config_hash})
    run.report.write_text("<html>")


def rows(folder: SweepFolder) -> dict[str, dict]:
    return {row["id"]: row for row in json.loads(folder.index.read_text())["points"]}


def test_a_folder_of_another_sweep_is_refused_and_left_alone(sweep, write_sweep, tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.occupy(sweep)
    before = folder.spec.read_bytes()
    other = load_sweep(write_sweep(tmp_path / "o.yaml", more={"release.clip": 3.0}))
    with pytest.raises(CheckpointError, match=r"another sweep \(they differ in base.release.clip\)"):
        folder.occupy(other)
    with pytest.raises(CheckpointError, match="differ in name"):
        folder.occupy(load_sweep(write_sweep(tmp_path / "n.yaml", name="other")))
    assert folder.spec.read_bytes() == before
    folder.occupy(load_sweep(write_sweep(tmp_path / "more.yaml", seeds=[0, 1, 2])))


def test_a_folder_of_anything_else_is_refused(sweep, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(OutputError, match="not a sweep folder"):
        SweepFolder(tmp_path / "mine").occupy(sweep)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(OutputError, match="cannot be written"):
        SweepFolder(tmp_path / "mine" / "notes.txt" / "x").occupy(sweep)


def test_done_points_are_found_by_their_hash_and_others_are_to_do(sweep, tmp_path):
    folder, points = SweepFolder(tmp_path / "sweep"), sweep.points()
    finish(folder, points[1])
    finish(folder, points[2])
    other = folder.point(points[2].id)
    other.sealed.write_json(other.result, {"config_hash": "of something else"})
    folder.point(points[3].id).root.mkdir()
    index = Index(folder, sweep.hash())
    assert [p.id for p in index.name(points)] == [points[0].id, points[2].id, points[3].id]
    index.save()
    saved = rows(folder)
    assert [row["status"] for row in saved.values()] == ["pending", "done", "pending", "pending"]
    assert saved[points[1].id]["settings"] == {"release.sigma": 0.1}
    assert saved[points[1].id]["seed"] == 1


def test_a_point_whose_result_was_edited_is_to_do(sweep, tmp_path):
    folder, point = SweepFolder(tmp_path / "sweep"), sweep.points()[0]
    finish(folder, point)
    run = folder.point(point.id)
    for data in (b"", b"{}", run.result.read_bytes() + b" "):
        run.result.write_bytes(data)
        assert not is_done(run, point.config_hash)


def test_a_tracked_point_is_done_once_mlflow_has_it_or_has_failed(sweep, tmp_path):
    folder, point = SweepFolder(tmp_path / "sweep"), sweep.points()[0]
    finish(folder, point)
    run = folder.point(point.id)
    assert is_done(run, point.config_hash)
    for tracking, done in (
        ({"run_id": "a"}, False),
        ({"run_id": "a", "status": "KILLED"}, False),
        ({"run_id": "a", "status": "FINISHED"}, True),
        ({"run_id": "a", "failure": "the store went away"}, True),
    ):
        (run.root / "tracking.json").write_text(json.dumps(tracking))
        assert is_done(run, point.config_hash) is done
    (run.root / "tracking.json").unlink()
    run.report.unlink()
    assert not is_done(run, point.config_hash)


def test_points_the_sweep_no_longer_names_are_kept(sweep, write_sweep, tmp_path):
    folder, points = SweepFolder(tmp_path / "sweep"), sweep.points()
    index = Index(folder, sweep.hash())
    index.name(points)
    for point in points[:2]:
        finish(folder, point)
        index.set(point.id, "done", seconds=2.0)
    index.set(points[2].id, "running")
    axes = [{"key": "release.sigma", "values": [0.3, 0.5]}]
    later = load_sweep(write_sweep(tmp_path / "later.yaml", axes=axes))
    again = Index(folder, later.hash())
    assert len(again.name(later.points())) == 4
    again.save()
    saved = rows(folder)
    assert len(saved) == 6
    assert saved[points[0].id]["status"] == "done"
    assert saved[points[0].id]["seconds"] == 2.0
    assert saved[points[2].id]["status"] == "pending", "nobody works on it any more"


def test_what_another_machine_finished_meanwhile_is_taken_over(sweep, tmp_path):
    folder, points = SweepFolder(tmp_path / "sweep"), sweep.points()
    here, there = Index(folder, sweep.hash()), Index(folder, sweep.hash())
    here.name(points)
    there.name(points)
    there.set(points[0].id, "done", seconds=3.0)
    here.set(points[1].id, "failed", error={"type": "E", "message": "m"})
    saved = rows(folder)
    assert [row["status"] for row in saved.values()] == ["done", "failed", "pending", "pending"]
    assert here.points[points[0].id].seconds == 3.0


def test_an_index_that_cannot_be_written_stops_nothing(sweep, tmp_path, monkeypatch):
    folder, points = SweepFolder(tmp_path / "sweep"), sweep.points()
    index = Index(folder, sweep.hash())
    index.name(points)
    index.save()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Sealed, "write", full)
    index.set(points[0].id, "done", seconds=1.0)
    assert "No space left" in str(index.unsaved)
    assert rows(folder)[points[0].id]["status"] == "pending"
    monkeypatch.undo()
    index.set(points[1].id, "running")
    assert index.unsaved is None
    assert rows(folder)[points[0].id]["status"] == "done"


def test_a_broken_index_says_what_to_do(sweep, tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    folder.occupy(sweep)
    folder.index.write_text("{")
    with pytest.raises(CheckpointError, match="written anew from the run folders"):
        Index(folder, sweep.hash())


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path):
    path = tmp_path / "locks" / "a.lock"
    with exclusive(path) as first, exclusive(path, wait=False) as second:
        assert first
        assert not second
    with exclusive(path, wait=False) as third:
        assert third
