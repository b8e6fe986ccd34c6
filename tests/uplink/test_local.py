import inspect

import numpy as np
import pytest

from privhier.errors import UplinkError
from privhier.uplink.base import Uplink
from privhier.uplink.codec import ReleaseMessage, encode
from privhier.uplink.local import LocalUplink


def message(epoch, count):
    records, payload = np.arange(count, dtype=np.int64), np.zeros((count, 4), np.float32)
    return encode(ReleaseMessage("run", "train", "joint", epoch, 0, records, payload))


def test_it_carries_the_same_bytes_counts_them_and_returns_nothing():
    received = []

    def sink(data):
        received.append(data)
        return b"a gradient for you"

    uplink = LocalUplink(sink)
    sent = [message(0, 3), message(0, 2), message(1, 5)]
    assert [uplink.send(data) for data in sent] == [None, None, None]
    assert received == sent
    assert (uplink.stats.messages, uplink.stats.records) == (3, 10)
    assert uplink.stats.bytes == sum(map(len, sent))
    assert uplink.stats.by_epoch == {("joint", 0): 5, ("joint", 1): 5}
    assert uplink.stats.bytes_per_record == uplink.stats.bytes / 10


def test_a_broken_message_is_neither_carried_nor_counted():
    received = []
    uplink = LocalUplink(received.append)
    with pytest.raises(UplinkError):
        uplink.send(message(0, 3)[:-1])
    assert received == []
    assert uplink.stats.messages == 0
    assert uplink.stats.bytes_per_record == 0


def test_an_uplink_can_only_send():
    assert isinstance(LocalUplink(lambda data: None), Uplink)
    public = {name for name, _ in inspect.getmembers(Uplink, inspect.isfunction) if not name.startswith("_")}
    assert public == {"send"}
    assert inspect.signature(Uplink.send).return_annotation == "None"
