import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from privhier.errors import GuaranteeError
from privhier.privacy.accounting import gaussian_epsilon, laplace_epsilon
from privhier.privacy.guarantees import CURIOUS_CLOUD, OWN_RELEASES
from privhier.privacy.ledger import Guarantee, Ledger
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.uplink.local import LocalUplink
from privhier.uplink.outgoing import outgoing

GAUSS = ReleaseMechanism("gaussian", 1.0, 2.0)
LAPLACE = ReleaseMechanism("laplace", 1.0, 2.0)


def spend(ledger, split="train", epochs=3, mechanism=GAUSS, source="seeded", records=100, phase="joint"):
    for epoch in range(epochs):
        ledger.charge(split, records, phase, epoch, mechanism, source)
    return ledger


def own(ledger, **kwargs):
    row = ledger.guarantees(delta=1e-5, **kwargs)[0]
    assert row.name == OWN_RELEASES
    return row


def test_releases_are_counted_per_split_and_the_worst_split_speaks():
    ledger = spend(spend(spend(Ledger(None), "train", 30), "test", 2), "val", 1)
    assert [ledger.releases_per_record(split) for split in ("train", "val", "test", "other")] == [30, 1, 2, 0]
    assert ledger.releases_per_record() == 30
    row = own(ledger)
    assert row.epsilon == gaussian_epsilon(math.sqrt(30), 1e-5)
    assert row.delta == 1e-5
    assert "all 30 releases of one record" in row.covers[0]
    assert "test 2, train 30, val 1" in row.covers[0]


def test_different_noise_scales_compose_exactly():
    ledger = spend(Ledger(None), epochs=2)
    ledger.charge("train", 100, "cloud", 0, ReleaseMechanism("gaussian", 2.0, 1.0), "seeded", releases=3)
    assert ledger.releases_per_record("train") == 5
    assert own(ledger).epsilon == gaussian_epsilon(math.sqrt(2 * 1.0 + 3 * 16.0), 1e-5)
    pure = spend(Ledger(None), epochs=3, mechanism=LAPLACE)
    pure.charge("train", 100, "cloud", 0, ReleaseMechanism("laplace", 1.0, 0.5), "seeded")
    row = own(pure)
    assert row.epsilon == pytest.approx(laplace_epsilon(2.0, 1.0, 3) + 4.0)
    assert row.delta == 0.0
    assert "L1" in row.adjacency


def test_fewer_but_noisier_splits_do_not_hide_the_one_that_spent_most():
    ledger = spend(Ledger(None), "train", 4)
    ledger.charge("test", 10, "evaluation", 0, ReleaseMechanism("gaussian", 1.0, 0.1), "seeded")
    assert own(ledger).epsilon == gaussian_epsilon(20.0, 1e-5)


def test_a_repeated_charge_is_free_when_seeded_and_counts_when_not():
    seeded, system = spend(Ledger(None)), spend(Ledger(None), source="system")
    assert not seeded.charge("train", 100, "joint", 2, GAUSS, "seeded")
    assert system.charge("train", 100, "joint", 2, GAUSS, "system")
    assert seeded.releases_per_record("train") == 3
    assert system.releases_per_record("train") == 4


def test_no_two_mechanisms_sources_or_reused_streams_in_one_run():
    ledger = spend(Ledger(None))
    with pytest.raises(GuaranteeError, match="one mechanism"):
        ledger.charge("train", 100, "joint", 9, LAPLACE, "seeded")
    with pytest.raises(GuaranteeError, match="one mechanism"):
        ledger.charge("train", 100, "joint", 9, ReleaseMechanism("none"), "seeded")
    with pytest.raises(GuaranteeError, match="one noise_source"):
        ledger.charge("train", 100, "joint", 9, GAUSS, "system")
    with pytest.raises(GuaranteeError, match="noise would be reused"):
        ledger.charge("train", 100, "joint", 1, ReleaseMechanism("gaussian", 1.0, 3.0), "seeded")
    with pytest.raises(GuaranteeError, match="noise would be reused"):
        ledger.charge("train", 99, "joint", 1, GAUSS, "seeded")
    assert ledger.releases_per_record() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"records": 0}, {"epoch": -1}, {"releases": 0}, {"records": 1.0}, {"split": ""}, {"phase": ""},
        {"noise_source": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_a_charge_must_make_sense(change):
    fields = {"split": "train", "records": 9, "phase": "joint", "epoch": 0, "noise_source": "seeded"} | change
    ledger = Ledger(None)
    with pytest.raises(GuaranteeError, match=next(iter(change))):
        ledger.charge(mechanism=GAUSS, **fields)
    assert ledger.events == ()


def seal(path, *contents):
    """Make the folder's digests allow these contents of a ledger."""
    listing = json.loads((path.parent / "digests.json").read_text())
    listing["files"][path.name] = [hashlib.sha256(content).hexdigest() for content in contents]
    (path.parent / "digests.json").write_text(json.dumps(listing))


# --- on disk -----------------------------------------------------------------------------------------


def test_it_survives_a_reload(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = spend(spend(Ledger(path)), "test", 1)
    again = Ledger.load(path)
    assert again.events == ledger.events
    assert again.guarantees(delta=1e-5) == ledger.guarantees(delta=1e-5)
    again.charge("train", 100, "joint", 3, GAUSS, "seeded")
    assert Ledger.load(path).releases_per_record("train") == 4
    kinds = {json.loads(line)["kind"] for line in path.read_text().splitlines()}
    assert kinds == {"release"}
    with pytest.raises(GuaranteeError, match="existing ledger"):
        Ledger.load(tmp_path / "none.jsonl")


def test_every_torn_last_line_is_dropped_and_the_next_charge_is_whole(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=1)
    before = path.read_bytes()
    spend(Ledger(path), epochs=2)
    data = path.read_bytes()
    for end in {*range(len(before), len(data), 9), len(data) - 1}:
        path.write_bytes(data[:end])
        seal(path, before, data)  # as a crash leaves it: the second charge was about to be written
        ledger = Ledger(path)
        complete = end == len(data) - 1  # only the line end is missing: it was charged
        assert ledger.releases_per_record("train") == 1 + complete
        ledger.charge("train", 100, "joint", 5, GAUSS, "seeded")
        assert Ledger(path).releases_per_record("train") == 2 + complete


def test_a_torn_line_is_cut_off_by_writers_only(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=1)
    before = path.read_bytes()
    seal(path, before, before + b"{}\n")
    path.write_bytes(before + b'{"split": "tr')
    assert Ledger.load(path).releases_per_record("train") == 1
    assert path.read_bytes() == before + b'{"split": "tr'
    Ledger(path)
    assert path.read_bytes() == before


def test_a_ledger_torn_at_its_first_charge_is_an_empty_one(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=1)
    data = path.read_bytes()
    path.write_bytes(data[:20])
    with pytest.raises(GuaranteeError, match="edited or damaged"):
        Ledger(path)
    seal(path, b"", data)
    assert Ledger(path).events == ()


EDITS = {
    "emptied": lambda lines: [],
    "last line gone": lambda lines: lines[:-1],
    "first line gone": lambda lines: lines[1:],
    "line doubled": lambda lines: [lines[0], *lines],
    "lines swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "noise ten times": lambda lines: [
        line.replace(f'"sigma": {GAUSS.sigma}'.encode(), f'"sigma": {10 * GAUSS.sigma}'.encode())
        for line in lines
    ],
    "fewer records": lambda lines: [line.replace(b'"records": 100', b'"records": 10') for line in lines],
    "another's lines": lambda lines: [b"{}" for _ in lines],
}


@pytest.mark.parametrize("edit", list(EDITS))
def test_an_edited_ledger_is_refused(tmp_path, edit):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=3)
    lines = path.read_bytes().splitlines()
    changed = b"".join(line + b"\n" for line in EDITS[edit](lines))
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    for read in (Ledger, Ledger.load):
        with pytest.raises(GuaranteeError, match="edited or damaged"):
            read(path)
    assert path.read_bytes() == changed
    if edit not in ("emptied", "last line gone"):  # the chain alone cannot see a shorter ledger
        seal(path, changed)
        with pytest.raises(GuaranteeError, match=r"does not follow|is not an event"):
            Ledger(path)


def test_every_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=2)
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 11):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped))
        with pytest.raises(GuaranteeError):
            Ledger.load(path)


def test_a_ledger_that_was_taken_away_is_missed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=2)
    path.unlink()
    with pytest.raises(GuaranteeError, match="is missing"):
        Ledger(path)


def test_a_ledger_put_there_by_hand_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    spend(Ledger(tmp_path / "a" / "ledger.jsonl"))
    path = tmp_path / "ledger.jsonl"
    path.write_bytes((tmp_path / "a" / "ledger.jsonl").read_bytes())
    with pytest.raises(GuaranteeError, match="put there by something else"):
        Ledger(path)


@pytest.mark.parametrize("line", [b"{}", b"\x00\x00", b'{"kind": "dp_sgd"}', b"[1]", b"", b'{"split": "tr'])
def test_a_broken_line_elsewhere_voids_the_account(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=2)
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, second, b""]))
    seal(path, path.read_bytes())
    with pytest.raises(GuaranteeError, match=r"not an event|version"):
        Ledger(path)


def test_nonsense_values_on_disk_void_the_account(tmp_path):
    path = tmp_path / "ledger.jsonl"
    spend(Ledger(path), epochs=1)
    event = json.loads(path.read_text())
    for change in ({"sigma": -1.0}, {"sigma": "2"}, {"clip": 0.0}, {"records": 0}, {"mechanism": "gauss"}):
        path.write_text(json.dumps(event | change) + "\n")
        seal(path, path.read_bytes())
        with pytest.raises(GuaranteeError, match="not an event"):
            Ledger(path)


def test_the_charge_is_on_disk_before_the_release_can_be_sent(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), real(fd)))
    spend(Ledger(path), epochs=1)
    assert path.stat().st_size in synced
    code = f"""
        import os, signal
        from pathlib import Path
        from privhier.privacy.ledger import Ledger
        from privhier.privacy.release import ReleaseMechanism
        ledger = Ledger(Path({str(path)!r}))
        ledger.charge("test", 7, "evaluation", 0, ReleaseMechanism("gaussian", 1.0, 2.0), "seeded")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    assert Ledger.load(path).releases_per_record("test") == 1


# --- what really went up ------------------------------------------------------------------------------


def wire():
    return LocalUplink(lambda data: None)


def made(count, mechanism=GAUSS, source="seeded"):
    noise = SeededNoise(0, "ledger") if source == "seeded" else SystemNoise()
    return mechanism.sanitize(torch.zeros(count, 4), noise)


def send(ledger, uplink, epoch, records, phase="joint", **how):
    records = np.asarray(records, dtype=np.int64)
    release = how.pop("release", None) or made(len(records), **how)
    place = {"split": "train", "phase": phase, "epoch": epoch, "batch": 0}
    uplink.send(outgoing(ledger, release, run_id="run", records=records, **place))


def test_what_was_carried_agrees_with_what_was_charged():
    ledger = spend(Ledger(None), records=6, epochs=2)
    uplink = wire()
    for epoch in (0, 1):
        send(ledger, uplink, epoch, [5, 900, 3])
        send(ledger, uplink, epoch, [1, 2, 0])
    ledger.verify(uplink.stats.by_epoch)


def test_a_release_that_was_not_charged_is_caught_at_once():
    ledger = spend(Ledger(None), records=6, epochs=2)
    uplink = wire()
    with pytest.raises(GuaranteeError, match="never charged"):
        send(ledger, uplink, 2, [0, 1])
    with pytest.raises(GuaranteeError, match="never charged"):
        send(ledger, uplink, 0, [0, 1], phase="cloud")
    with pytest.raises(GuaranteeError, match="never charged"):
        ledger.observe("test", "joint", 0, np.array([7]), made(1))


def test_a_record_released_twice_on_one_charge_is_caught():
    ledger = spend(Ledger(None), records=6)
    uplink = wire()
    send(ledger, uplink, 0, [0, 1, 2])
    with pytest.raises(GuaranteeError, match="more often than the 1 release"):
        send(ledger, uplink, 0, [3, 4, 2])
    ledger.verify(uplink.stats.by_epoch)  # what was refused did not go up, and left no trace
    twice = Ledger(None)
    twice.charge("train", 6, "joint", 0, GAUSS, "seeded", releases=2)
    for _ in range(2):
        twice.observe("train", "joint", 0, np.arange(6), made(6))()
    twice.verify()


def test_what_was_observed_and_never_handed_to_an_uplink_is_caught():
    """Another ledger's message took its place on the line: the counts alone agree."""
    ledger, other, uplink = spend(Ledger(None)), Ledger(None), wire()
    message = {"run_id": "run", "split": "train", "phase": "joint", "epoch": 0, "batch": 0}
    outgoing(ledger, made(3), records=np.arange(3), **message)
    raw = ReleaseMechanism("none")
    other.charge("train", 3, "joint", 0, raw, "seeded")
    loud = raw.sanitize(torch.full((3, 4), 1000.0), SeededNoise(0, "x"))
    uplink.send(outgoing(other, loud, records=np.arange(3), **message))
    with pytest.raises(GuaranteeError, match="0 were handed to an uplink"):
        ledger.verify(uplink.stats.by_epoch)


def test_more_records_than_charged_are_caught():
    ledger = spend(Ledger(None), records=4)
    send(ledger, wire(), 0, [0, 1, 2, 3, 4])
    with pytest.raises(GuaranteeError, match="4 records"):
        ledger.verify()


def test_a_message_that_bypassed_the_ledger_is_caught():
    ledger = spend(Ledger(None), records=6)
    uplink = wire()
    send(ledger, uplink, 0, [0, 1, 2])
    silent = LocalUplink(lambda data: None)
    silent.stats = uplink.stats
    send(spend(Ledger(None), records=6), silent, 0, [3, 4])
    with pytest.raises(GuaranteeError, match="3 were observed"):
        ledger.verify(uplink.stats.by_epoch)
    for wrong in ([-1], [2**40]):
        with pytest.raises(GuaranteeError, match="index the data set"):
            ledger.observe("train", "joint", 0, np.array(wrong), made(1))


# --- the words ----------------------------------------------------------------------------------------


def test_the_fields_of_a_guarantee():
    assert [field.name for field in dataclasses.fields(Guarantee)] == [
        "name", "adversary", "adjacency", "unit", "epsilon", "delta", "covers", "does_not_cover", "note",
        "allows", "measure", "nats",
    ]  # fmt: skip


def test_the_own_release_row_says_exactly_whom_it_binds():
    row = own(spend(Ledger(None), epochs=1, source="system"))
    assert row.adversary == (
        "sees only that record's releases; or sees everything, and the edge was never trained on that record"
    )
    assert row.adjacency == "replace one record by any other (L2 sensitivity 2C)"
    assert row.unit == "record"
    assert row.note == ""
    assert row.epsilon == pytest.approx(4.377, abs=1e-3)


def test_the_curious_cloud_has_no_epsilon_for_training_records_whatever_the_noise():
    for mechanism in (GAUSS, LAPLACE, ReleaseMechanism("none")):
        rows = spend(Ledger(None), mechanism=mechanism).guarantees(delta=1e-5)
        row = next(row for row in rows if row.name == CURIOUS_CLOUD)
        assert row.epsilon is None
        assert row.delta is None
        assert row.covers == []
        assert row.note.startswith("none: ")
        assert "DP-SGD" in row.note


def test_people_with_several_records_get_their_own_rows():
    ledger = spend(spend(Ledger(None), "train", 3), "test", 1)
    rows = ledger.guarantees(delta=1e-5, largest_person={"train": 9, "test": 4})
    people = {row.name: row for row in rows if row.unit == "person"}
    train, test = (
        people["own releases of one person, train records"],
        people["own releases of one person, test records"],
    )
    assert train.epsilon == gaussian_epsilon(math.sqrt(27), 1e-5)
    assert test.epsilon == gaussian_epsilon(2.0, 1e-5)
    assert "all 9 records" in train.adjacency
    assert "numerically vacuous" in train.note
    pure = spend(Ledger(None), epochs=2, mechanism=LAPLACE).guarantees(
        delta=1e-5, largest_person={"train": 5}
    )
    assert pure[-1].epsilon == pytest.approx(10.0)
    assert pure[-1].delta == 0.0
    assert len(ledger.guarantees(delta=1e-5)) == 2
    assert any("names no people" in line for line in own(ledger).does_not_cover)


@pytest.mark.parametrize(("epochs", "vacuous"), [(3, False), (5, True)])
def test_large_epsilons_are_called_vacuous(epochs, vacuous):
    row = own(spend(Ledger(None), epochs=epochs, source="system"))
    assert (row.epsilon > 10) == vacuous
    assert (row.note == "numerically vacuous") == vacuous


def test_seeded_noise_makes_every_number_a_simulation():
    rows = spend(Ledger(None), epochs=30).guarantees(delta=1e-5, largest_person={"train": 2})
    for row in rows:
        if row.epsilon is not None:
            assert "simulation: void against anyone who knows the seed" in row.note
            assert "numerically vacuous" in row.note
    for row in spend(Ledger(None), source="system").guarantees(delta=1e-5, largest_person={"train": 2}):
        assert "simulation" not in row.note


def test_without_noise_there_is_no_epsilon_and_the_row_says_so():
    raw = own(spend(Ledger(None), mechanism=ReleaseMechanism("none")))
    clipped = own(spend(Ledger(None), mechanism=ReleaseMechanism("gaussian", 1.0, 0.0)))
    mixed = spend(Ledger(None))
    mixed.charge("test", 5, "evaluation", 0, ReleaseMechanism("gaussian", 1.0, 0.0), "seeded")
    for row in (raw, clipped, own(mixed), own(spend(Ledger(None), mechanism=ReleaseMechanism("laplace")))):
        assert row.epsilon is None
        assert row.delta is None
        assert row.covers == []
        assert row.note.startswith("no guarantee")
    assert own(Ledger(None)).note == "nothing was released"
    assert own(Ledger(None)).epsilon == 0.0
    tiny = own(spend(Ledger(None), mechanism=ReleaseMechanism("gaussian", 1.0, 1e-3), source="system"))
    assert math.isfinite(tiny.epsilon)
    assert tiny.epsilon > 1e6


def test_what_is_not_covered_is_always_listed():
    for source, generator in (("seeded", "Mersenne twister"), ("system", "operating system")):
        rows = spend(Ledger(None), source=source).guarantees(
            delta=1e-5, largest_person={"train": 2}, also_not_covered=["weights were pretrained elsewhere"]
        )
        for row in rows:
            text = "\n".join(row.does_not_cover)
            for words in (
                "task labels, sent in the clear", "clip bounds (unless",
                "normalization constants, class weights",
                "early stopping, hyper-parameters", "sweep points", "floating-point", generator,
                "pretrained elsewhere",
            ):  # fmt: skip
                assert words in text, (row.name, words)
    quiet = spend(Ledger(None)).guarantees(delta=1e-5, labels_in_clear=False)
    assert all("task labels, sent" not in line for row in quiet for line in row.does_not_cover)
