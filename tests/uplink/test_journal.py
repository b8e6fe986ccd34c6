"""The journal: every changed bit is noticed, a cut end goes with the next write, readers change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from privhier.errors import UplinkError
from privhier.uplink import journal as room
from privhier.uplink.codec import decode
from privhier.uplink.journal import Journal
from privhier.uplink.journal_format import HEAD_BYTES, MARK


@pytest.fixture
def written(fuzzing, tmp_path) -> tuple[Path, list[bytes]]:
    """A journal of three messages in one segment."""
    return tmp_path / "journal", fill(tmp_path / "journal", fuzzing.honest()[:3])


def fill(folder: Path, messages: list[bytes]) -> list[bytes]:
    journal = Journal(folder, sync=False)
    for data in messages:
        journal.append(0, journal.following(0), data, decode(data))
    journal.close()
    return messages


def contents(journal: Journal) -> list[bytes]:
    return [journal.read(number) for number in range(len(journal))]


def test_every_flipped_bit_is_noticed_and_nothing_is_changed(written):
    folder, messages = written
    path = folder / "000000.log"
    good = path.read_bytes()
    heads, at = set(range(len(MARK))), len(MARK)
    for data in messages:
        heads |= set(range(at, at + HEAD_BYTES, 1 if at == len(MARK) else 5))
        at += HEAD_BYTES + len(data)
    assert at == len(good)
    tried = 0
    for bit in range(8 * len(good)):
        if bit // 8 not in heads and bit % 23:
            continue
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(UplinkError, match="is damaged") as caught:
            Journal(folder)
        assert caught.value.key == "uplink.journal"
        assert path.read_bytes() == bad
        tried += 1
    assert tried > 8 * (len(MARK) + HEAD_BYTES)
    path.write_bytes(good)
    assert contents(Journal(folder)) == messages


def test_a_cut_is_read_over_and_cut_off_by_the_next_write_only(written, fuzzing):
    folder, messages = written
    path = folder / "000000.log"
    good, late = path.read_bytes(), fuzzing.honest()[3]
    ends = [len(MARK)]
    for data in messages:
        ends.append(ends[-1] + HEAD_BYTES + len(data))
    for cut in [
        *range(0, len(good), 37),
        *ends,
        *(end - 1 for end in ends[1:]),
        *(end + 1 for end in ends[:-1]),
    ]:
        whole = sum(end <= cut for end in ends[1:])
        path.write_bytes(good[:cut])
        journal = Journal(folder, sync=False)
        assert contents(journal) == messages[:whole]
        assert path.read_bytes() == good[:cut]  # opening is reading
        for data in [*messages[whole:], late]:
            journal.append(0, journal.following(0), data, decode(data))
        journal.close()
        assert contents(Journal(folder)) == [*messages, late]


def test_segments_that_are_cut_missing_or_exchanged_are_damage(fuzzing, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SEGMENT_BYTES", 1)
    messages = fill(tmp_path / "j", fuzzing.honest()[:4])
    paths = sorted((tmp_path / "j").iterdir())
    good = [path.read_bytes() for path in paths]
    assert len(paths) == 4
    assert contents(Journal(tmp_path / "j")) == messages
    for break_it in (
        lambda: paths[1].write_bytes(good[1][:-1]),
        lambda: paths[1].write_bytes(b""),
        lambda: paths[0].unlink(),
        lambda: paths[2].unlink(),
        lambda: (paths[1].write_bytes(good[2]), paths[2].write_bytes(good[1])),
        lambda: paths[3].write_bytes(good[3] + good[3][len(MARK) :]),
        lambda: paths[3].write_bytes(good[3] + bytes(HEAD_BYTES)),
    ):
        break_it()
        with pytest.raises(UplinkError, match="is damaged"):
            Journal(tmp_path / "j")
        for path, data in zip(paths, good, strict=True):
            path.write_bytes(data)


def test_a_message_that_changes_while_the_journal_is_open_is_noticed(written):
    folder, _ = written
    journal = Journal(folder)
    path = folder / "000000.log"
    bad = bytearray(path.read_bytes())
    bad[-1] ^= 1
    path.write_bytes(bad)
    with pytest.raises(UplinkError, match="does not fit its digest"):
        contents(journal)


def test_an_older_journal_is_refused_in_words(tmp_path, fuzzing):
    import struct

    data = fuzzing.honest()[0]
    (tmp_path / "000000.log").write_bytes(struct.pack("<IHQ", len(data), 0, 0) + data)
    with pytest.raises(UplinkError, match="older version"):
        Journal(tmp_path)


def test_reading_a_journal_that_is_not_there_makes_nothing(tmp_path):
    assert len(Journal(tmp_path / "none")) == 0
    assert not (tmp_path / "none").exists()
