import inspect

import numpy as np
import pytest

from privhier.errors import UplinkError
from privhier.uplink.base import Uplink
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.local import LocalUplink


def message(fuzzing, epoch, count):
    records, payload = np.arange(count, dtype=np.int64), np.zeros((count, 4), np.float32)
    return fuzzing.upward(encode(ReleaseMessage("run", "train", "joint", epoch, 0, records, payload)))


def test_it_carries_the_same_bytes_counts_them_and_returns_nothing(fuzzing):
    received = []

    def sink(data):
        received.append(data)
        return b"a gradient for you"

    uplink = LocalUplink(sink)
    sent = [message(fuzzing, 0, 3), message(fuzzing, 0, 2), message(fuzzing, 1, 5)]
    assert [uplink.send(one) for one in sent] == [None, None, None]
    assert received == [one.data for one in sent]
    assert (uplink.stats.messages, uplink.stats.records) == (3, 10)
    assert uplink.stats.bytes == sum(map(len, received))
    assert uplink.stats.by_epoch == {("joint", 0): 5, ("joint", 1): 5}
    assert uplink.stats.bytes_per_record == uplink.stats.bytes / 10


@pytest.mark.parametrize("broken", ["too large", "bytes", "a message that was decoded"])
def test_what_cannot_go_up_is_neither_carried_nor_counted(fuzzing, broken):
    received = []
    uplink = LocalUplink(received.append, max_bytes=100 if broken == "too large" else 10_000)
    sent = message(fuzzing, 0, 3)
    what = {"too large": sent, "bytes": sent.data, "a message that was decoded": decode(sent.data)}
    with pytest.raises(UplinkError, match="100 bytes" if broken == "too large" else "only what outgoing"):
        uplink.send(what[broken])
    assert received == []
    assert uplink.stats.messages == 0
    assert uplink.stats.bytes_per_record == 0


def test_an_uplink_can_only_send():
    assert isinstance(LocalUplink(lambda data: None), Uplink)
    public = {name for name, _ in inspect.getmembers(Uplink, inspect.isfunction) if not name.startswith("_")}
    assert public == {"send"}
    assert inspect.signature(Uplink.send).return_annotation == "None"
