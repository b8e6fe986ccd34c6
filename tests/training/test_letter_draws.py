"""When a run answers letters: after the charge, once, and never again; what breaks that is caught."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.audit.audit import audit_run, read_claim
from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import GuaranteeError, UplinkError
from privhier.models.features import edge_features
from privhier.privacy.events import LetterEvent
from privhier.privacy.ledger import Ledger
from privhier.training.edge_side import EdgeSide
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy, saved_config
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.release import Releaser, messages_of
from privhier.training.trainer import Trainer
from privhier.uplink.codec import decode, encode
from privhier.uplink.journal import Journal
from privhier.uplink.spool import Spool

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
LETTERS = {
    "model": {"bottleneck": {"kind": "letters", "size": 1, "letters": 6, "groups": 2}},
    "release": {"mechanism": "randomized_response", "target_epsilon": 6.0},
}


def make_config(*epochs: int, source: str = "seeded") -> RunConfig:
    return small_config(
        epochs=epochs, images=160, size=16, batch=24, privacy={"noise_source": source}, **LETTERS
    )


def trainer(config: RunConfig, folder: Path) -> Trainer:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    return Trainer(
        config, prepared.data, build_mechanism(config, len(train)), run, device=CPU, keep=train[:20]
    )


def killed(config: RunConfig, folder: Path, phase: str) -> None:
    """Stopped after the first epoch of a phase, before its checkpoint: the worst moment."""
    job = trainer(config, folder)
    work = job._steps[phase]

    def fail(epoch: int):
        work(epoch)
        raise KeyboardInterrupt

    job._steps[phase] = fail
    with pytest.raises(KeyboardInterrupt):
        job.run()


# Answered again


def test_letters_answered_again_under_system_noise_are_charged_and_claimed_again(tmp_path):
    config = make_config(1, 1, 1, source="system")
    killed(config, tmp_path, "joint")
    trainer(config, tmp_path).run()
    folder, planned = RunFolder(tmp_path), config.schedule.releases_per_record
    ledger = Ledger.load(folder.ledger)
    assert ledger.releases_per_record("train") == planned + 1
    account = ledger.accounts()["train"]
    assert account.epsilon == pytest.approx(6.0 * (planned + 1) / planned)
    assert sum(count for _, _, count in account.answers) == 2 * (planned + 1)
    claim = read_claim(folder, saved_config(folder))
    assert claim.epsilon == pytest.approx(account.epsilon)
    assert (claim.letters.releases, claim.letters.epsilon) == (planned + 1, pytest.approx(3.0 / planned))
    assert not audit_run(tmp_path, draws=2_000).refuted


def test_letters_that_lie_on_disk_are_not_answered_again(tmp_path, watch):
    config = make_config(1, 0, 1, source="system")
    killed(config, tmp_path, "release")
    before = len(watch.drawn)
    trainer(config, tmp_path).run()
    assert {key[0] for key in watch.drawn[before:]} == {"test"}
    assert Ledger.load(RunFolder(tmp_path).ledger).releases_per_record("train") == 1


@pytest.mark.parametrize("phase", ["joint", "release"])
def test_the_same_seeded_answers_again_cost_nothing(tmp_path, phase):
    config = make_config(1, 1, 1)
    killed(config, tmp_path, phase)
    trainer(config, tmp_path).run()
    ledger = Ledger.load(RunFolder(tmp_path).ledger)
    assert ledger.releases_per_record("train") == 2
    assert ledger.accounts()["train"].epsilon == pytest.approx(6.0)


@pytest.fixture
def stopped(tmp_path, link):
    """An edge of letters under system noise, killed after its fifth message; and what it had spooled."""
    config = link.make_config(1, 1, 1, privacy={"noise_source": "system"}, **LETTERS)
    job = link.edge_at(config, tmp_path / "edge")
    append, spooled = job.spool.append, []

    def dying(message):
        entry = append(message)
        spooled.append(message.data)
        if len(spooled) == 5:
            raise KeyboardInterrupt
        return entry

    job.spool.append = dying
    uplink = link.uplink_of(job, 9)
    with pytest.raises(KeyboardInterrupt):
        job.run(uplink)
    uplink.abandon()
    return config, spooled


def test_a_killed_edge_answers_no_letter_again(tmp_path, link, stopped):
    config, spooled = stopped
    link.run_both(config, tmp_path)
    journal = Journal(tmp_path / "cloud" / "journal")
    assert [journal.read(number) for number in range(5)] == spooled
    assert {decode(data).wire for data in spooled} == {"letters"}
    events = Ledger.load(RunFolder(tmp_path / "edge").ledger).events
    assert all(isinstance(event, LetterEvent) for event in events)
    assert len(events) == len({event.key for event in events}) == 6


def test_sabotage_a_resumed_edge_that_forgets_what_it_answered_is_refused(
    tmp_path, link, stopped, monkeypatch
):
    """Its second draw of a release that lies in the spool does not get past it."""
    config, _ = stopped
    monkeypatch.setattr(Spool, "find", lambda self, key: None)
    job = link.edge_at(config, tmp_path / "edge")
    uplink = link.uplink_of(job, 9)
    with pytest.raises(UplinkError, match="never redrawn"):
        job.run(uplink)
    uplink.abandon()


def test_sabotage_a_spool_that_answers_again_when_it_sends_again_is_refused(
    tmp_path, link, stopped, monkeypatch
):
    """The first message goes up as it was; of the second the cloud gets other answers, well encoded."""
    config, _ = stopped
    read = Spool.read

    def redrawn(self, sequence):
        message = decode(read(self, sequence))
        if sequence != 1:
            return encode(message)
        return encode(replace(message, payload=(message.payload + 1) % 6))

    monkeypatch.setattr(Spool, "read", redrawn)
    errors: list[Exception] = []
    with link.cloud_at(config, tmp_path / "cloud", errors=errors) as (cloud, _):
        job = link.edge_at(config, tmp_path / "edge")
        with pytest.raises(UplinkError, match="are not those spooled here"):
            job.run(link.uplink_of(job, cloud.server.port))


# Answered before the charge


class Watch:
    """Where letters are answered of records that the ledger on disk does not have charged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[tuple[str, str, int]] = []
        self.uncharged: list[tuple[str, str, int]] = []
        watch, original = self, Releaser.noise

        def noise(releaser: Releaser, split: str, phase: str, epoch: int, batch: int):
            source, key = original(releaser, split, phase, epoch, batch), (split, phase, epoch)
            return watch.watched(source, key, RunFolder(watch.folder).ledger)

        self.folder = Path()
        monkeypatch.setattr(Releaser, "noise", noise)

    def watched(self, source, key, path):
        watch = self

        class Watched:
            kind = source.kind

            def uniform(self, shape):
                watch.drawn.append(key)
                charged = Ledger.load(path).events if path.exists() else ()
                if all(event.key != key for event in charged):
                    watch.uncharged.append(key)
                return source.uniform(shape)

        return Watched()


@pytest.fixture
def watch(monkeypatch, tmp_path):
    made = Watch(monkeypatch)
    made.folder = tmp_path
    return made


@pytest.mark.parametrize("source", ["seeded", "system"])
def test_every_letter_is_charged_on_disk_before_it_is_answered(tmp_path, watch, source):
    trainer(make_config(1, 1, 1, source=source), tmp_path).run()
    assert watch.uncharged == []
    splits = ("train", "val", "test")
    assert set(watch.drawn) == {(split, phase, 0) for split in splits for phase in ("joint", "cloud")}


def test_sabotage_a_split_that_is_answered_before_its_charge(tmp_path, watch, monkeypatch):
    """Nothing but the order is wrong, so nothing is refused: only who watches the order sees it."""

    def release_split(self, uplink, edge, data, split, phase, epoch, *, device, with_labels):
        made = []
        for number, batch in enumerate(messages_of(getattr(data.splits, split), edge.release_shape)):
            z = edge_features(edge, data.images, batch, device=device)
            noise = self.noise(split, phase, epoch, number)
            made.append((number, batch, self.mechanism.sanitize(z, noise, edge.codebook)))
        self.charge(split, phase, epoch, len(getattr(data.splits, split)))
        for number, batch, release in made:
            self.send(uplink, split, phase, epoch, number, batch, release, data if with_labels else None)

    monkeypatch.setattr(Releaser, "release_split", release_split)
    trainer(make_config(1, 0, 1), tmp_path).run()
    assert set(watch.uncharged) == {(split, "cloud", 0) for split in ("train", "val", "test")}


def test_sabotage_a_joint_epoch_that_is_charged_when_it_is_over(tmp_path, watch, monkeypatch):
    def joint(self, epoch, uplink):
        loss = self._epoch("joint", epoch, uplink=uplink)
        self.releaser.charge("train", "joint", epoch, len(self.data.splits.train))
        return loss

    monkeypatch.setattr(EdgeSide, "joint", joint)
    with pytest.raises(GuaranteeError, match="never charged"):
        trainer(make_config(1, 1, 0), tmp_path).run()
    assert set(watch.uncharged) == {("train", "joint", 0)}


def test_what_is_charged_is_what_each_record_was_answered(tmp_path, watch):
    """Two uniform values an answer: as many calls as messages and steps, and not one more."""
    job = trainer(make_config(1, 1, 1), tmp_path)
    job.run()
    steps = -(-len(job.data.splits.train) // 24)
    counts = {key: watch.drawn.count(key) for key in watch.drawn}
    assert counts.pop(("train", "joint", 0)) == 2 * steps
    assert set(counts.values()) == {2}
    assert np.unique([key[2] for key in counts]).tolist() == [0]
