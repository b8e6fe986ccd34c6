"""The spool: damage of index and messages is found when it is opened, and nothing is repaired away."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from privhier.errors import UplinkError
from privhier.uplink.outgoing import OutgoingMessage
from privhier.uplink.spool import Spool


def upward(fuzzing: ModuleType, count: int) -> list[OutgoingMessage]:
    return [fuzzing.upward(data) for data in fuzzing.honest()[:count]]


def filled(folder: Path, messages: list[OutgoingMessage], acknowledged: int = 0) -> Spool:
    spool = Spool(folder)
    for message in messages:
        spool.append(message)
    spool.acknowledge(acknowledged)
    return spool


@pytest.mark.parametrize("acknowledged", [0, 2, 3])
def test_every_flipped_bit_of_the_index_is_noticed(fuzzing, tmp_path, acknowledged):
    spool = filled(tmp_path, upward(fuzzing, 3), acknowledged)
    path = tmp_path / "index.jsonl"
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 7):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(UplinkError, match="is damaged") as caught:
            Spool(tmp_path)
        assert caught.value.key == "uplink.spool"
        assert path.read_bytes() == bad
    path.write_bytes(good)
    again = Spool(tmp_path)
    assert (again.entries, again.identity) == (spool.entries, spool.identity)
    assert again.chain(3) == spool.chain(3)


def test_a_last_line_that_was_cut_is_written_again_from_its_message(fuzzing, tmp_path):
    spool = filled(tmp_path, upward(fuzzing, 3), 1)
    path = tmp_path / "index.jsonl"
    good = path.read_bytes()
    last = good.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(good)):
        path.write_bytes(good[:cut])
        assert Spool(tmp_path).entries == spool.entries
        assert path.read_bytes() == good


def test_a_cut_that_no_kill_leaves_is_damage(fuzzing, tmp_path):
    filled(tmp_path, upward(fuzzing, 3), 3)  # nothing waits: the last line was whole before it was sent
    path = tmp_path / "index.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UplinkError, match="last line has no end"):
        Spool(tmp_path)


@pytest.mark.parametrize("break_it", ["flip", "cut", "empty", "other"])
def test_a_damaged_message_is_found_when_the_spool_is_opened(fuzzing, tmp_path, break_it):
    messages = fuzzing.honest()[:4]
    filled(tmp_path, upward(fuzzing, 4), 1)
    path, good = tmp_path / "00000002.msg", messages[2]
    bad = {"flip": good[:-1] + bytes([good[-1] ^ 4]), "cut": good[:-1], "empty": b"", "other": messages[3]}
    path.write_bytes(bad[break_it])
    with pytest.raises(UplinkError, match="not those that were spooled") as caught:
        Spool(tmp_path)
    assert str(path) in str(caught.value)


def test_a_message_damaged_later_is_not_sent(fuzzing, tmp_path):
    spool = filled(tmp_path, upward(fuzzing, 2))
    (tmp_path / "00000001.msg").write_bytes(fuzzing.honest()[0])
    with pytest.raises(UplinkError, match="not those that were spooled"):
        spool.read(1)


def test_an_older_index_is_refused_in_words(tmp_path):
    (tmp_path / "index.jsonl").write_text('[0, "train", "joint", 0, 0, 5, 100, "00"]\n')
    with pytest.raises(UplinkError, match="older version"):
        Spool(tmp_path)


def test_every_folder_has_a_name_of_its_own_and_keeps_it(tmp_path):
    names = [Spool(tmp_path / name).identity for name in ("a", "b", "a")]
    assert names[0] == names[2] != names[1]
    assert len(names[0]) == 32
