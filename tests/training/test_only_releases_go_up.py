"""Only a release can be sent, and only one made as the ledger was charged: nothing else leaves the edge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from privhier.config import parse_config
from privhier.defenses.base import DefenseBatch
from privhier.defenses.none import NoDefense
from privhier.errors import GuaranteeError, PrivhierError, ReleaseError, UplinkError
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.release import Releaser
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.frames import Hello
from privhier.uplink.grpc_link import GrpcUplink
from privhier.uplink.local import LocalUplink
from privhier.uplink.outgoing import OutgoingMessage, outgoing
from privhier.uplink.spool import Spool

GAUSS = ReleaseMechanism("gaussian", 1.0, 2.0)
WIDTH, RECORDS = 4, np.arange(6, dtype=np.int64)
RAW = torch.full((6, WIDTH), 1000.0)


class Bench:
    """A releaser, its ledger and an uplink that keeps what arrives."""

    def __init__(self, source: str = "seeded", mechanism: ReleaseMechanism = GAUSS) -> None:
        config = parse_config(
            {
                "name": "sending",
                "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
                "schedule": {"joint_epochs": 3},
                "release": {"mechanism": "gaussian", "clip": 1.0, "sigma": 2.0},
                "privacy": {"noise_source": source},
            }
        )
        self.arrived: list[bytes] = []
        self.ledger, self.uplink = Ledger(None), LocalUplink(self.arrived.append)
        self.releaser = Releaser(config, mechanism, self.ledger, run_id="run")

    def charge(self, *epochs: int) -> Bench:
        for epoch in epochs:
            self.releaser.charge("train", "joint", epoch, len(RECORDS))
        return self

    def made(self, rows: int = 6, mechanism: ReleaseMechanism = GAUSS, noise: Any = None) -> Any:
        noise = noise or self.releaser.noise("train", "joint", 0, 0)
        return mechanism.sanitize(torch.ones(rows, WIDTH), noise)

    def send(self, sanitized: Any, *, epoch: int = 0, records: Any = RECORDS) -> None:
        self.releaser.send(self.uplink, "train", "joint", epoch, 0, records, sanitized)

    def refuses(self, error: type[PrivhierError], match: str, *args: Any, **kwargs: Any) -> None:
        """Nothing leaves, and an honest release goes up afterwards as if nothing had happened."""
        with pytest.raises(error, match=match):
            self.send(*args, **kwargs)
        assert self.arrived == []
        assert self.uplink.stats.messages == 0
        self.charge(0)
        self.send(self.made())
        self.ledger.verify(self.uplink.stats.by_epoch)
        assert len(self.arrived) == 1


@pytest.mark.parametrize("raw", [RAW, RAW.numpy(), RAW.tolist(), (RAW,), None, GAUSS.clip_features(RAW)])
def test_raw_values_are_refused(raw):
    bench = Bench().charge(0)
    bench.refuses(ReleaseError, "only ReleaseMechanism.sanitize makes a release", raw)


def test_the_named_argument_is_the_reported_one():
    bench = Bench().charge(0)
    with pytest.raises(ReleaseError, match="'Tensor'"):
        bench.releaser.send(bench.uplink, "train", "joint", 0, 0, records=RECORDS, sanitized=RAW)


class Louder(ReleaseMechanism):
    def clip_features(self, z):
        return z.float()


OTHERS = {
    "less noise": ReleaseMechanism("gaussian", 1.0, 0.2),
    "more noise": ReleaseMechanism("gaussian", 1.0, 20.0),
    "no noise": ReleaseMechanism("gaussian", 1.0, 0.0),
    "another bound": ReleaseMechanism("gaussian", 2.0, 2.0),
    "another kind": ReleaseMechanism("laplace", 1.0, 2.0),
    "none": ReleaseMechanism("none"),
    "another wire": ReleaseMechanism("gaussian", 1.0, 2.0, "float16"),
    "a subclass": Louder("gaussian", 1.0, 2.0),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_mechanism_than_the_run_s_is_refused(other):
    bench = Bench().charge(0)
    bench.refuses(
        GuaranteeError, "not the mechanism that this run is charged for", bench.made(6, OTHERS[other])
    )


def test_past_the_releaser_a_subclass_is_not_what_was_charged():
    bench = Bench().charge(0)
    loud = bench.made(6, Louder("gaussian", 1.0, 2.0))
    with pytest.raises(GuaranteeError, match="is not the ReleaseMechanism charged"):
        outgoing(
            bench.ledger, loud, run_id="run", split="train", phase="joint", epoch=0, batch=0, records=RECORDS
        )


def test_a_mechanism_that_is_changed_and_put_back_is_not_what_was_charged():
    bench = Bench().charge(0)
    mine = ReleaseMechanism("gaussian", 1.0, 2.0)
    object.__setattr__(mine, "sigma", 0.0)
    quiet = bench.made(6, mine)
    object.__setattr__(mine, "sigma", 2.0)
    bench.refuses(GuaranteeError, "not the mechanism that this run is charged for", quiet)


def test_randomized_labels_are_looked_up_and_no_others_go_up():
    bench = Bench().charge(0)
    data = SimpleNamespace(task=torch.ones(8, 1, dtype=torch.int64))
    bench.releaser._labels = torch.zeros(8, 1, dtype=torch.int64)
    bench.releaser.send(bench.uplink, "train", "joint", 0, 0, RECORDS, bench.made(), data)
    assert decode(bench.arrived[0]).task_labels.sum() == 0


@pytest.mark.parametrize("other", ["less noise", "more noise", "no noise", "another bound"])
def test_another_mechanism_than_was_charged_is_refused(other):
    """The releaser's own mechanism is exchanged after the charge: the ledger still knows what was charged."""
    bench = Bench().charge(0)
    bench.releaser.mechanism = OTHERS[other]
    with pytest.raises(GuaranteeError, match="made otherwise than it was charged"):
        bench.send(bench.made(6, OTHERS[other]))
    assert bench.arrived == []
    bench.releaser.mechanism = GAUSS
    bench.send(bench.made())
    bench.ledger.verify(bench.uplink.stats.by_epoch)


@pytest.mark.parametrize(
    ("source", "noise"), [("system", SeededNoise(0, "predictable")), ("seeded", SystemNoise())]
)
def test_noise_of_another_source_than_was_charged_is_refused(source, noise):
    bench = Bench(source).charge(0)
    with pytest.raises(GuaranteeError, match=f"made otherwise than it was charged.*'{source}'"):
        bench.send(bench.made(noise=noise))
    assert bench.arrived == []
    bench.send(bench.made())
    bench.ledger.verify(bench.uplink.stats.by_epoch)


@pytest.mark.parametrize("rows", [5, 7, 0])
def test_as_many_rows_as_records(rows):
    bench = Bench().charge(0)
    bench.refuses(UplinkError, "row", bench.made(rows))
    ledger = Bench().charge(0).ledger
    with pytest.raises(GuaranteeError, match="one row a record"):
        ledger.observe("train", "joint", 0, RECORDS, bench.made(rows))


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_release_is_sent_once(epoch):
    """Its noise is spent: sent for another epoch it would pass for a fresh one."""
    bench = Bench().charge(0, 1)
    release = bench.made()
    bench.send(release)
    with pytest.raises(GuaranteeError, match="a release is sent once"):
        bench.send(release, epoch=epoch)
    half = bench.made(3)
    with pytest.raises(GuaranteeError, match="a release is sent once"):
        bench.send([half, half], epoch=1)
    assert len(bench.arrived) == 1
    bench.send(bench.made(), epoch=1)
    bench.ledger.verify(bench.uplink.stats.by_epoch)


def test_what_was_never_charged_is_refused_and_may_be_charged_then():
    bench = Bench()
    release = bench.made()
    with pytest.raises(GuaranteeError, match="never charged"):
        bench.send(release)
    bench.charge(0)
    bench.send(release)
    bench.ledger.verify(bench.uplink.stats.by_epoch)


def test_several_releases_go_up_as_one_message():
    bench = Bench().charge(0)
    parts = [bench.made(4), bench.made(2)]
    bench.send(parts)
    wanted = torch.cat([part.values for part in parts]).numpy()
    assert np.array_equal(decode(bench.arrived[0]).payload, wanted)


def test_values_changed_in_place_are_refused():
    bench = Bench().charge(0)
    release = bench.made()
    release.values.fill_(1000)
    bench.refuses(ReleaseError, "what goes up must be what", release)


def upward(ledger: Ledger, *releases: Any) -> OutgoingMessage:
    place = {"split": "train", "phase": "joint", "epoch": 0, "batch": 0}
    return outgoing(ledger, releases, run_id="0" * 16, records=RECORDS, **place)


def test_no_message_without_a_charge_and_none_of_two_mechanisms():
    ledger = Ledger(None)
    with pytest.raises(GuaranteeError, match="never charged"):
        upward(ledger, Bench().made())
    ledger.charge("train", 6, "joint", 0, GAUSS, "seeded")
    with pytest.raises(ReleaseError, match="made by one mechanism"):
        upward(ledger, Bench().made(3), Bench().made(3, OTHERS["less noise"]))
    with pytest.raises(ReleaseError, match="0 ways"):
        upward(ledger)
    with pytest.raises(UplinkError, match="only what outgoing"):
        OutgoingMessage(b"raw")
    assert decode(upward(ledger, Bench().made()).data).records.tolist() == RECORDS.tolist()


BYTES = encode(ReleaseMessage("0" * 16, "train", "joint", 0, 0, RECORDS, RAW.numpy()))
UPLINKS = ["local", "spool", "grpc"]


@pytest.mark.parametrize("what", ["bytes", "message", "tensor", "release", "empty"])
@pytest.mark.parametrize("uplink", UPLINKS)
def test_an_uplink_takes_nothing_else(tmp_path: Path, uplink: str, what: str):
    arrived: list[bytes] = []
    spool = Spool(tmp_path / "spool")
    hello = Hello("c" * 64, "0" * 16, 0, 1, (WIDTH,), "float32", {"t": 2}, {"train": 6, "val": 1, "test": 1})
    line = GrpcUplink("127.0.0.1:9", hello, spool, credentials=None) if uplink == "grpc" else None
    takes = {
        "local": LocalUplink(arrived.append).send,
        "spool": spool.append,
        "grpc": line and line.send,
    }[uplink]
    given = {
        "bytes": BYTES,
        "message": decode(BYTES),
        "tensor": RAW,
        "release": Bench().made(),
        "empty": object.__new__(OutgoingMessage),
    }[what]
    try:
        with pytest.raises(UplinkError, match="only what outgoing"):
            takes(given)
        assert (arrived, spool.entries) == ([], [])
        assert list((tmp_path / "spool").glob("*.msg")) == []
        ledger = Ledger(None)
        ledger.charge("train", 6, "joint", 0, GAUSS, "seeded")
        takes(upward(ledger, Bench().made()))
        assert len(arrived) + len(spool.entries) == 1
    finally:
        if line is not None:
            line.abandon()


def test_a_defense_that_changes_the_features_it_is_handed_is_found(tmp_path, link, monkeypatch):
    """The exits are trained on what goes up: the two cannot come to differ."""
    honest = NoDefense.loss

    def changing(self: NoDefense, batch: DefenseBatch) -> torch.Tensor:
        loss = honest(self, batch)
        batch.z.data.mul_(0.5)
        return loss

    monkeypatch.setattr(NoDefense, "loss", changing)
    with pytest.raises(ReleaseError, match="changed in place"):
        link.in_process(link.make_config(0, 1, 0, defense={"name": "none"}), tmp_path)
