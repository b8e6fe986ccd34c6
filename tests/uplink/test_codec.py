import dataclasses
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load

from privhier.errors import UplinkError
from privhier.uplink.codec import ReleaseMessage, decode, encode


def make(dtype=np.float32, shape=(5, 3, 2), labels=True):
    rng = np.random.default_rng(0)
    return ReleaseMessage(
        run_id="utk-eps8.0",
        phase="joint",
        epoch=3,
        records=np.array([9, 2, 70_000, 0, 5], dtype=np.int64)[: shape[0]],
        payload=rng.normal(size=shape).astype(dtype),
        task_labels=rng.integers(-1, 4, (shape[0], 2)) if labels else None,
    )


def repack(data, change):
    """Rewrite a message's header, as someone who knows the format but not the rules would."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    change(head)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(5, 8), (1, 3, 4, 4)])
@pytest.mark.parametrize("labels", [True, False])
def test_a_message_survives_the_wire_bit_for_bit(dtype, shape, labels):
    message = make(dtype, shape, labels)
    data = encode(message)
    back = decode(data)
    for field in dataclasses.fields(ReleaseMessage):
        sent, got = getattr(message, field.name), getattr(back, field.name)
        if isinstance(sent, np.ndarray):
            assert got.dtype == sent.dtype
            assert got.flags.writeable
            np.testing.assert_array_equal(got, sent)
        else:
            assert got == sent
    assert encode(back) == data


def test_the_message_has_no_word_for_a_gradient_or_a_weight():
    names = [field.name for field in dataclasses.fields(ReleaseMessage)]
    assert names == ["run_id", "phase", "epoch", "records", "payload", "task_labels"]


def test_the_bytes_are_plain_safetensors_and_lean():
    message = make(shape=(5, 64))
    data = encode(message)
    tensors = load(data)
    assert set(tensors) == {"records", "payload", "task_labels"}
    np.testing.assert_array_equal(tensors["payload"], message.payload)
    assert len(data) - 5 * (64 * 4 + 8 + 16) < 512


def test_every_truncation_and_extension_is_refused():
    data = encode(make())
    for end in range(len(data)):
        with pytest.raises(UplinkError):
            decode(data[:end])
    for extra in (b"\0", b" " * 8, data):
        with pytest.raises(UplinkError):
            decode(data + extra)


def test_thousands_of_random_mutations_are_refused_and_nothing_else_is_ever_raised():
    data = encode(make())
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for trial in range(6000):
        mutated = bytearray(data)
        limit = (8, header, len(data))[trial % 3]
        for _ in range(int(rng.integers(1, 5))):
            mutated[rng.integers(0, limit)] ^= int(rng.integers(1, 256))
        if trial % 5 == 0:
            cut = sorted(rng.integers(0, len(data), 2))
            del mutated[cut[0] : cut[1]]
        if bytes(mutated) == data:
            continue
        with pytest.raises(UplinkError):
            decode(bytes(mutated))


def test_random_bytes_and_pickles_are_refused_unread():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    rng = np.random.default_rng(1)
    junk = [rng.bytes(int(n)) for n in rng.integers(0, 200, 500)]
    junk += [pickle.dumps(Bomb()), b"", b"\0" * 64, (40).to_bytes(8, "little") + b"[" * 40]
    junk += [(4000).to_bytes(8, "little") + b"[" * 4000, (2**63).to_bytes(8, "little") + b"{}" * 40]
    for data in junk:
        with pytest.raises(UplinkError):
            decode(data)
    for other in (None, "text", bytearray(encode(make())), 5):
        with pytest.raises(UplinkError, match="must be bytes"):
            decode(other)


HEADERS = [
    lambda head: head.update(gradient={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
    lambda head: head["payload"].update(dtype="F64"),
    lambda head: head["payload"].update(dtype=["F32"]),
    lambda head: head["payload"].update(shape=[]),
    lambda head: head["payload"].update(shape=[5, 3, True, 2]),
    lambda head: head["payload"].update(shape=[5, 2, 3]),
    lambda head: head["payload"].update(shape=[10**30, 10**30]),
    lambda head: head["payload"].update(shape=[-5, -6]),
    lambda head: head["payload"].update(data_offsets=[0, 8]),
    lambda head: head["task_labels"].update(shape=[5]),
    lambda head: head["__metadata__"].update(epoch="4"),
    lambda head: head["__metadata__"].update(epoch="1e3"),
    lambda head: head["__metadata__"].update(run_id=7),
    lambda head: head["__metadata__"].update(run_id="../../etc"),
    lambda head: head["__metadata__"].update(schema="other/1"),
    lambda head: head["__metadata__"].update(answer="please"),
    lambda head: head.pop("records"),
    lambda head: head.pop("__metadata__"),
    lambda head: head.update(payload=None),
]


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_a_header_that_says_anything_else_is_refused(number):
    data = encode(make())
    assert repack(data, lambda head: None) == data
    with pytest.raises(UplinkError):
        decode(repack(data, HEADERS[number]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_id": ""}, "run_id"),
        ({"run_id": "a/b"}, "letters, digits"),
        ({"phase": "Joint phase"}, "phase"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": 1.0}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"records": np.array([1, 1, 2, 3, 4])}, "once"),
        ({"records": np.array([-1, 1, 2, 3, 4])}, "below 0"),
        ({"records": np.arange(5, dtype=np.int32)}, "int64"),
        ({"records": np.arange(4)}, r"\(4, ...\)"),
        ({"payload": np.zeros((5, 3))}, "float32 or float16"),
        ({"payload": np.zeros(5, np.float32)}, "axes"),
        ({"payload": np.zeros((5, 0), np.float32)}, "axes"),
        ({"payload": np.full((5, 2), np.nan, np.float32)}, "finite"),
        ({"payload": np.full((5, 2), np.inf, np.float16)}, "finite"),
        ({"payload": [[1.0]] * 5}, "array"),
        ({"task_labels": np.zeros((4, 1), np.int64)}, "5 rows"),
        ({"task_labels": np.full((5, 1), -2)}, "below -1"),
        ({"task_labels": np.zeros(5, np.int64)}, "2 axes"),
    ],
)
def test_a_message_that_breaks_a_rule_is_not_encoded(change, words):
    with pytest.raises(UplinkError, match=words):
        encode(dataclasses.replace(make(), **change))


def test_sizes_are_bounded_on_both_ends():
    data = encode(make())
    with pytest.raises(UplinkError, match="at most 100 bytes"):
        encode(make(), max_bytes=100)
    with pytest.raises(UplinkError, match="9 to 100 bytes"):
        decode(data, max_bytes=100)
