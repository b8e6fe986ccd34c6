"""Folders that were moved or copied: a sweep, one point taken out of it, an edge and a cloud."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import privhier as ph
from privhier import session as job
from privhier.cli.main import main
from privhier.distributed.join import join
from privhier.errors import CheckpointError
from privhier.evaluation.result import Result
from privhier.storage.sealed import Sealed
from privhier.sweeps.job import run_sweep
from privhier.tracking.sqlite import sqlite_uri
from privhier.tracking.sweep import log_frontier

HERE = Path(__file__).parent
LEAST = {"attacks.attribute": [{"name": "logistic_regression", "options": {"trials": 0}}]}


@pytest.fixture(scope="module")
def spec(write_sweep, tmp_path_factory) -> Path:
    return write_sweep(
        tmp_path_factory.mktemp("spec") / "tiny.yaml",
        axes=[{"key": "release.sigma", "values": [0.1]}],
        seeds=[0],
        more=LEAST,
    )


@pytest.fixture(scope="module")
def finished(spec, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "finished"
    assert run_sweep(spec, workers=1, out=out).done == 1
    return out


@pytest.fixture
def point(finished, tmp_path) -> Path:
    """A point copied as ``cp -r`` does, links as links; the sweep it is from is not beside it."""
    source = next((finished / "points").iterdir())
    return Path(shutil.copytree(source, tmp_path / "alone" / "point", symlinks=True))


def numbers(run: Path) -> dict[str, object]:
    result = json.loads((run / "result.json").read_text())
    return {name: value for name, value in result.items() if name not in ("timing", "git")}


def test_a_finished_point_has_files_of_its_own(finished):
    for place in (finished / "points").rglob("*"):
        assert not place.is_symlink(), place
    for run in (finished / "points").iterdir():
        assert list((run / "attacks" / "raw_image").rglob("*.npz"))
        assert (run / "references" / "open" / "training.json").is_file()
        assert not (run / "references" / "open" / "checkpoint.pt").exists()


def test_a_point_works_on_its_own(point, told):
    before = numbers(point)
    told("report", point)
    told("attack", point)
    assert numbers(point) == before
    told("attack", point, "--add", "nearest_neighbors")
    result = Result.read(point / "result.json")
    assert "nearest_neighbors" in {row.attack for row in result.references["open"].leakage["male"].attacks}
    assert "leakage/male" in told("compare", point)
    images = np.zeros((2, 3, 24, 24), dtype=np.uint8)
    assert set(ph.load_tail(point).predict(ph.load_edge(point)(images_tensor(images)))) == {"smiling"}
    told("audit", point, "--draws", "1000", "--canaries", "0")


def images_tensor(images: np.ndarray) -> object:
    import torch

    return torch.from_numpy(images)


@pytest.mark.slow
def test_a_moved_sweep_is_reported_and_goes_on(spec, finished, write_sweep, tmp_path, told):
    moved = tmp_path / "far" / "sweep"
    shutil.copytree(finished, moved, symlinks=True)
    told("report", moved)
    for same in (spec, moved / "sweep.yaml"):
        summary = run_sweep(same, workers=1, out=moved)
        assert (summary.done, summary.before) == (1, 1)
    axes = [{"key": "release.sigma", "values": [0.1, 0.3]}]
    grown = write_sweep(tmp_path / "more.yaml", axes=axes, seeds=[0], more=LEAST)
    summary = run_sweep(grown, workers=1, out=moved)
    assert (summary.done, summary.before) == (2, 1)
    twins = [run / "references" / "open" / "edge.safetensors" for run in (moved / "points").iterdir()]
    assert len({path.read_bytes() for path in twins}) == 1
    assert len(list((moved / "shared" / "references").iterdir())) == 1, "the reference is trained once"
    assert max(path.stat().st_nlink for path in twins) > 1, "and takes its room once"
    point, other = sorted((moved / "points").iterdir())
    assert f"privhier report {moved}" in told("attack", point, "--add", "nearest_neighbors")
    told("report", moved)
    page = (moved / "report.html").read_text()
    assert "Not all points met the same attackers" in page
    assert f"<code>{point.name}</code>: nearest_neighbors (attribute)" in page
    assert "nearest_neighbors (attribute)" in told("compare", point, other)
    told("attack", other, "--add", "nearest_neighbors")
    told("report", moved)
    assert "Not all points met" not in (moved / "report.html").read_text()
    assert run_sweep(grown, workers=1, out=moved).before == 2, "an addition undoes no point"


@pytest.mark.slow
def test_links_that_lead_nowhere_are_no_traceback(told, point, capsys):
    """As points of sweeps had them that an older version wrote: taken out, they hang in the air."""
    before = numbers(point)
    for place in (point / "attacks" / "raw_image", point / "references" / "open"):
        shutil.rmtree(place)
        place.symlink_to(Path("..") / ".." / ".." / "shared" / place.parent.name / "0123456789abcdef")
    told("report", point)
    with pytest.raises(SystemExit) as ended:
        main(["attack", str(point)])
    assert ended.value.code == 2
    assert "holds no finished training" in capsys.readouterr().err
    told("run", point / "config.yaml", "--out", point, "--resume")
    assert numbers(point) == before, "what is not there any more is made again"


def test_links_into_a_sweep_become_files(finished, tmp_path, told):
    """The same in a sweep that is still whole."""
    moved = Path(shutil.copytree(finished, tmp_path / "sweep", symlinks=True))
    point = next((moved / "points").iterdir())
    place = point / "references" / "open"
    shutil.rmtree(place)
    place.symlink_to(Path("..") / ".." / ".." / "shared" / "references" / shared_by(moved))
    before = numbers(point)
    told("attack", point)
    assert not place.is_symlink()
    assert numbers(point) == before
    alone = Path(shutil.copytree(point, tmp_path / "alone", symlinks=True))
    shutil.rmtree(moved)
    told("attack", alone)
    assert numbers(alone) == before


def shared_by(sweep: Path) -> str:
    (only,) = (sweep / "shared" / "references").iterdir()
    return only.name


def test_an_answer_that_was_damaged_is_asked_again(finished, tmp_path, told):
    moved = Path(shutil.copytree(finished, tmp_path / "sweep", symlinks=True))
    point = next((moved / "points").iterdir())
    before, place = numbers(point), point / "attacks" / "raw_image"
    (there,) = (moved / "shared" / "raw_image").iterdir()
    shutil.rmtree(place)
    place.symlink_to(Path("..") / ".." / ".." / "shared" / "raw_image" / there.name)
    path = next(there.rglob("*.npz"))
    path.unlink()
    path.write_bytes(b"damaged")
    told("attack", point)
    assert numbers(point) == before
    assert not place.is_symlink()


def test_an_edited_file_is_not_taken_over(finished, tmp_path):
    moved = Path(shutil.copytree(finished, tmp_path / "sweep", symlinks=True))
    point = next((moved / "points").iterdir())
    place = point / "references" / "open"
    shutil.rmtree(place)
    there = moved / "shared" / "references" / shared_by(moved)
    place.symlink_to(Path("..") / ".." / ".." / "shared" / "references" / there.name)
    path = there / "history.json"
    text = path.read_text()
    path.unlink()
    path.write_text(text + " ")
    with pytest.raises(CheckpointError, match=r"history\.json"):
        job.reopen_session(point)
    assert place.is_symlink(), "it stays as it was"


@pytest.mark.slow
def test_both_halves_are_joined_where_they_are_now(repository, tmp_path, told):
    folders = runpy.run_path(str(HERE.parent / "corruption" / "folders.py"))
    config = folders["tiny"](
        repository, "attacks.attribute=[{name: logistic_regression, options: {trials: 0}}]"
    )
    folders["pair"](config, tmp_path / "here")
    there = tmp_path / "there"
    there.mkdir()
    for half in ("edge", "cloud"):
        (tmp_path / "here" / half).rename(there / f"my-{half}")
    session = join(there / "my-edge", there / "my-cloud", there / "joined")
    assert session.folder.training.is_file()
    moved = there / "elsewhere"
    (there / "joined").rename(moved)
    told("attack", moved)
    told("attack", moved, "--add", "nearest_neighbors")
    assert ph.load_edge(there / "my-edge").image_size == 24


def test_a_store_that_is_gone_is_not_begun_anew(tmp_path):
    sweep = tmp_path / "now" / "sweep"
    sweep.mkdir(parents=True)
    gone = tmp_path / "before" / "mlflow.db"
    Sealed(sweep).write_json(sweep / "tracking.json", {"run_id": "0" * 32, "store": sqlite_uri(gone)})
    problem = log_frontier(sweep, [])
    assert "is not there any more" in problem
    assert not gone.parent.exists()
    assert not (tmp_path / "now" / "mlflow.db").exists()


def test_a_sweep_that_moved_with_its_store_is_logged_there(empty_store, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sweep = tmp_path / "now" / "sweep"
    sweep.mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "now" / "mlflow.db")
    client = MlflowClient(tracking_uri=sqlite_uri(tmp_path / "now" / "mlflow.db"))
    run = client.create_run(client.create_experiment("e", artifact_location=str(tmp_path / "a")))
    gone = sqlite_uri(tmp_path / "before" / "mlflow.db")
    Sealed(sweep).write_json(sweep / "tracking.json", {"run_id": run.info.run_id, "store": gone})
    assert log_frontier(sweep, [], {"hypervolume/male": 0.5}) is None
    assert client.get_run(run.info.run_id).data.metrics["hypervolume/male"] == 0.5
