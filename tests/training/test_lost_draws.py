"""What was drawn once and is gone: refused where nobody can repeat it, charged again where it is redrawn."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import CheckpointError
from privhier.privacy.events import ClipEvent, LabelEvent
from privhier.privacy.ledger import Ledger
from privhier.training import labels as labels_room
from privhier.training.edge_job import EdgeJob
from privhier.training.folder import RunFolder
from privhier.training.labels import labels_to_send
from privhier.training.occupancy import occupy
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.release import Releaser
from privhier.training.trainer import Trainer
from privhier.uplink.outgoing import OutgoingMessage

CPU = torch.device("cpu")
SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
small_config, QUANTILE = SMALL["small_config"], SMALL["QUANTILE"]


def make_config(source: str, joint: int = 0, cloud: int = 1, **more: Any) -> RunConfig:
    release = {"mechanism": "gaussian", "clip": QUANTILE, "target_epsilon": 8.0}
    privacy = {"noise_source": source, "label_epsilon": 0.5}
    changes = {"release": release, "privacy": privacy, **more}
    return small_config(images=160, size=16, epochs=(0, joint, cloud), **changes)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    config = make_config("system")
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def make_trainer(prepared: Prepared, folder: Path, config: RunConfig) -> Trainer:
    run, train = RunFolder(folder), prepared.data.splits.train
    folder.mkdir(exist_ok=True)
    occupy(run, config, "0" * 64)
    return Trainer(
        config, prepared.data, build_mechanism(config, len(train)), run, device=CPU, keep=train[:5]
    )


def stop_after(trainer: Trainer, phase: str) -> None:
    """Run until a phase has done its work, and is killed before its checkpoint."""
    work = trainer._steps[phase]

    def killed(epoch: int) -> Any:
        work(epoch)
        raise KeyboardInterrupt

    trainer._steps[phase] = killed  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def of_kind(folder: Path, kind: type) -> list[Any]:
    return [event for event in Ledger.load(RunFolder(folder).ledger).events if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("sent_labels.npy", LabelEvent, r"sent_labels\.npy.*is missing: the randomized task labels"),
        ("clip.json", ClipEvent, r"clip\.json.*is missing: the clip bound"),
    ],
)
@pytest.mark.parametrize("released", [False, True])
def test_lost_answers_and_bounds_of_system_noise_are_refused(
    prepared, tmp_path, name, kind, message, released
):
    config = make_config("system")
    trainer = make_trainer(prepared, tmp_path, config)
    if released:
        stop_after(trainer, "release")
    kept = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    before = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=message):
        make_trainer(prepared, tmp_path, config)
    assert not (tmp_path / name).exists()
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    (tmp_path / name).write_bytes(kept)  # found again, the run goes on with the one draw
    make_trainer(prepared, tmp_path, config)
    assert (tmp_path / name).read_bytes() == kept
    assert len(of_kind(tmp_path, kind)) == 1


@pytest.mark.parametrize("name", ["sent_labels.npy", "clip.json"])
def test_under_a_seed_a_lost_file_is_missed_as_well(prepared, tmp_path, name):
    """The same draw would come again, but a folder that lacks a file is not the one that was written."""
    config = make_config("seeded")
    make_trainer(prepared, tmp_path, config)
    kept, charged = (tmp_path / name).read_bytes(), (tmp_path / "ledger.jsonl").read_bytes()
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        make_trainer(prepared, tmp_path, config)
    assert not (tmp_path / name).exists()
    assert (tmp_path / "ledger.jsonl").read_bytes() == charged
    (tmp_path / name).write_bytes(kept)
    make_trainer(prepared, tmp_path, config)


def test_answers_are_read_back_and_never_drawn_again(prepared, tmp_path):
    config, folder = make_config("system"), RunFolder(tmp_path)
    ledger = Ledger(folder.ledger)
    first = labels_to_send(config, prepared.data, folder, ledger)
    assert torch.equal(labels_to_send(config, prepared.data, folder, Ledger(folder.ledger)), first)
    assert len(of_kind(tmp_path, LabelEvent)) == 1
    assert not torch.equal(first, prepared.data.task)


def test_two_tasks_share_one_epsilon(tmp_path, monkeypatch):
    config = make_config(
        "seeded",
        dataset={**make_config("seeded").model_dump(mode="json")["dataset"], "task": ["smiling", "glasses"]},
    )
    data, asked = prepare(config, load_dataset(config.dataset, seed=config.seed)).data, []
    whole = labels_room.randomize

    def randomize(labels: Any, epsilon: float, *rest: Any) -> Any:
        asked.append(epsilon)
        return whole(labels, epsilon, *rest)

    monkeypatch.setattr(labels_room, "randomize", randomize)
    ledger = Ledger(None)
    labels_to_send(config, data, RunFolder(tmp_path), ledger)
    assert asked == [0.25, 0.25]
    assert ledger.responses().epsilon == 0.5


@pytest.mark.parametrize("lost", ["cloud_cache", "releases", "both"])
@pytest.mark.parametrize("source", ["system", "seeded"])
def test_lost_releases_are_missed_and_never_drawn_again(prepared, tmp_path, lost, source):
    config = make_config(source)
    stop_after(make_trainer(prepared, tmp_path, config), "release")
    charged = (tmp_path / "ledger.jsonl").read_bytes()
    names = ("cloud_cache", "releases") if lost == "both" else (lost,)
    for name in names:
        shutil.move(tmp_path / name, tmp_path / f"{name} lost")
    trainer = make_trainer(prepared, tmp_path, config)
    with pytest.raises(CheckpointError, match="is missing"):
        trainer.run()
    assert (tmp_path / "ledger.jsonl").read_bytes() == charged
    for name in names:
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.move(tmp_path / f"{name} lost", tmp_path / name)
    make_trainer(prepared, tmp_path, config).run()


def test_lost_releases_of_the_test_split_are_missed(prepared, tmp_path):
    config = make_config("system", joint=1, cloud=0)
    stop_after(make_trainer(prepared, tmp_path, config), "test")
    path = tmp_path / "releases" / "test.npy"
    kept = path.read_bytes()
    path.unlink()
    trainer = make_trainer(prepared, tmp_path, config)
    with pytest.raises(CheckpointError, match="is missing"):
        trainer.run()
    assert trainer.ledger.releases_per_record("test") == 1
    path.write_bytes(kept)
    trainer = make_trainer(prepared, tmp_path, config)
    trainer.run()
    assert trainer.ledger.releases_per_record("test") == 1


def test_a_kill_at_any_time_leaves_no_draw_uncharged(prepared, tmp_path, monkeypatch):
    """Release by release: what was drawn under system noise is at most what was charged by then."""
    config, drawn = make_config("system", joint=1, cloud=1), {}
    whole = Releaser.noise

    def noise(self: Releaser, split: str, phase: str, epoch: int, batch: int) -> Any:
        paid = [e for e in self.ledger.events if getattr(e, "key", None) == (split, phase, epoch)]
        drawn.setdefault((split, phase, epoch), []).append(len(paid))
        return whole(self, split, phase, epoch, batch)

    monkeypatch.setattr(Releaser, "noise", noise)
    stop_after(make_trainer(prepared, tmp_path, config), "joint")
    assert all(set(paid) == {1} for paid in drawn.values())
    drawn.clear()
    make_trainer(prepared, tmp_path, config).run()
    assert set(drawn[("train", "joint", 0)]) == {2}
    assert set(drawn[("train", "cloud", 0)]) == {1}


class StopError(Exception):
    """A kill."""


class Listening:
    """An uplink that spools and sends nothing."""

    waited = 0.0

    def __init__(self, job: EdgeJob) -> None:
        self._spool = job.spool

    def send(self, message: OutgoingMessage) -> None:
        self._spool.append(message)

    def close(self) -> None:
        raise StopError  # killed while it waits for the cloud


def test_an_edge_whose_spool_is_lost_draws_nothing_again(prepared, tmp_path):
    config = make_config("system", joint=1, cloud=0)

    def job() -> EdgeJob:
        occupy(RunFolder(tmp_path), config, "0" * 64)
        mechanism = build_mechanism(config, len(prepared.data.splits.train))
        return EdgeJob(config, prepared.data, mechanism, RunFolder(tmp_path), device=CPU)

    first = job()
    with pytest.raises(StopError):
        first.run(Listening(first))
    again = job()
    with pytest.raises(StopError):
        again.run(Listening(again))  # everything is spooled: nothing is drawn
    assert again.spool.totals() == first.spool.totals()
    shutil.rmtree(RunFolder(tmp_path).spool)
    third = job()
    with pytest.raises(CheckpointError, match=r"spool.*names 0 messages, but the checkpoint had spooled"):
        third.run(Listening(third))
    assert third.spool.totals()["messages"] == 0


@pytest.mark.parametrize("name", ["sent_labels.npy", "clip.json"])
def test_what_was_charged_and_never_written_is_not_drawn_after_all(prepared, tmp_path, name):
    """As a kill between the charge and the file leaves it: no digest misses the file, but the ledger does."""
    config, folder = make_config("system"), RunFolder(tmp_path)
    make_trainer(prepared, tmp_path, config)
    (tmp_path / name).unlink()
    listing = json.loads(folder.sealed.path.read_text())
    del listing["files"][name]
    folder.sealed.path.write_text(json.dumps(listing))
    charged = folder.ledger.read_bytes()
    with pytest.raises(CheckpointError, match="charged and drawn once"):
        make_trainer(prepared, tmp_path, config)
    assert folder.ledger.read_bytes() == charged
    assert not (tmp_path / name).exists()
