import dataclasses
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from privhier.errors import UplinkError
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.grid import dequantize, rounded, unpack
from privhier.uplink.header import read_header, write_header

WIRES = ["float32", "float16", "int8", "int4"]


def make(wire="float32", shape=(5, 3, 2), labels=True):
    rng = np.random.default_rng(0)
    return ReleaseMessage(
        run_id="utk-eps8.0",
        split="train",
        phase="joint",
        epoch=3,
        batch=17,
        records=np.array([9, 2, 2**31 - 1, 0, 5], dtype=np.int64)[: shape[0]],
        payload=rounded(rng.normal(size=shape).astype(np.float32), wire),
        task_labels=rng.integers(-1, 4, (shape[0], 2)) if labels else None,
        wire=wire,
        edge=65_535,
    )


def repack(data, change):
    """Rewrite a message's header, as someone who knows the format but not the rules would."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    change(head)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def resign(data, change):
    """Rewrite a message's body, and give it the header that belongs to it."""
    length = int.from_bytes(data[:8], "little")
    layout = read_header(data[8 : 8 + length])
    parts, start = {}, 8 + length
    for name, tensor in load(data).items():
        parts[name] = tensor.copy()
    change(parts)
    body = b"".join(parts[name].tobytes() for name, _, _ in layout.tensors())
    assert len(body) == len(data) - start
    return write_header(layout, body) + body


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shape", [(5, 8), (3, 7), (4, 1), (1, 3, 4, 4), (2, 1, 1, 3, 1, 3)])
@pytest.mark.parametrize("labels", [True, False])
def test_a_message_survives_the_wire_bit_for_bit(wire, shape, labels):
    message = make(wire, shape, labels)
    data = encode(message)
    back = decode(data)
    for field in dataclasses.fields(ReleaseMessage):
        sent, got = getattr(message, field.name), getattr(back, field.name)
        if isinstance(sent, np.ndarray):
            assert got.dtype == sent.dtype
            assert got.flags.writeable
            assert got.shape == sent.shape
            assert got.tobytes() == sent.tobytes()
        else:
            assert got == sent
    assert encode(back) == data


def test_the_message_has_no_word_for_a_gradient_or_a_weight():
    names = [field.name for field in dataclasses.fields(ReleaseMessage)]
    assert names == [
        "run_id", "split", "phase", "epoch", "batch", "records", "payload", "task_labels", "wire", "edge",
        "letters",
    ]  # fmt: skip


def test_its_key_is_its_place_in_the_run():
    assert make().key == ("train", "joint", 3, 17)


@pytest.mark.parametrize("values", [64, 63])
@pytest.mark.parametrize("wire", WIRES)
def test_the_bytes_are_plain_safetensors_and_lean(wire, values):
    message = make(wire, shape=(5, values))
    data = encode(message)
    tensors = load(data)
    names = {"records", "payload", "task_labels"} | ({"exponents"} if wire in ("int8", "int4") else set())
    assert set(tensors) == names
    assert tensors["records"].dtype == np.int32
    np.testing.assert_array_equal(tensors["records"], message.records)
    assert tensors["task_labels"].dtype == np.int16
    np.testing.assert_array_equal(tensors["task_labels"], message.task_labels)
    payload = tensors["payload"]
    if wire in ("int8", "int4"):
        assert tensors["exponents"].dtype == np.int8
        assert tensors["exponents"].shape == (5,)
        if wire == "int4":
            assert payload.dtype == np.uint8
            assert payload.shape == (5, 32)
            payload = unpack(payload, values)
        assert payload.dtype == np.int8
        payload = dequantize(payload, tensors["exponents"])
    np.testing.assert_array_equal(payload, message.payload)
    share = {"float32": 4, "float16": 2, "int8": 1, "int4": 0.5}[wire]
    assert len(data) - 5 * (64 * share + 4 + 2 * 2 + 1) < 600


def test_a_file_of_it_opens_with_its_true_shape_in_the_metadata(tmp_path):
    (tmp_path / "message").write_bytes(encode(make("int4", shape=(5, 3, 3))))
    with safe_open(tmp_path / "message", framework="numpy") as opened:
        meta = opened.metadata()
    assert (meta["schema"], meta["wire"], meta["shape"]) == ("privhier.release/2", "int4", "3,3")
    assert (meta["split"], meta["batch"], meta["edge"]) == ("train", "17", "65535")


@pytest.mark.parametrize(("wire", "share"), [("float16", 0.51), ("int8", 0.26), ("int4", 0.14)])
def test_narrow_messages_are_small(wire, share):
    rng = np.random.default_rng(0)
    payload = rng.normal(size=(256, 2048)).astype(np.float32)
    labels, records = np.zeros((256, 1), np.int64), rng.permutation(100_000)[:256]
    sizes = [
        len(encode(ReleaseMessage("run", "train", "joint", 0, 0, records, rounded(payload, w), labels, w)))
        for w in (wire, "float32")
    ]
    assert sizes[0] <= share * sizes[1]


@pytest.mark.parametrize("wire", ["float16", "int8", "int4"])
def test_what_the_wire_would_change_is_not_encoded(wire):
    good = make(wire)
    spoiled = [good.payload * np.float32(1 / 3), make().payload, np.full((5, 3, 2), 3.4e38, np.float32)]
    last = good.payload.copy()
    last[-1, -1, -1] = np.nextafter(last[-1, -1, -1], np.float32(9))
    negative_zero = good.payload.copy()
    negative_zero[0] = -0.0
    spoiled += [last] + ([negative_zero] if wire != "float16" else [])
    for payload in spoiled:
        with pytest.raises(UplinkError, match=f"carried as {wire} without loss"):
            encode(dataclasses.replace(good, payload=payload))
    encode(dataclasses.replace(good, payload=np.zeros((5, 3, 2), np.float32)))


def test_payloads_that_lie_askew_in_memory_are_carried_too():
    for wire in WIRES:
        good = make(wire, shape=(5, 4, 6))
        askew = np.asfortranarray(good.payload)
        assert encode(dataclasses.replace(good, payload=askew)) == encode(good)


def test_the_largest_and_smallest_values_are_carried():
    top = np.finfo(np.float32).max
    rows = [[top, -top], [top / 2, 1.0], [2.0**-149, -(2.0**-149)], [2.0**-126, 2.0**-127], [0, 0]]
    for wire in WIRES:
        payload = rounded(np.array(rows, np.float32), wire)
        back = decode(encode(dataclasses.replace(make(wire), payload=payload)))
        np.testing.assert_array_equal(back.payload, payload)


def put(name, place, value):
    """A change of one value of one tensor."""
    return lambda parts: parts[name].__setitem__(place, value)


def coarser(parts):
    parts["payload"], parts["exponents"] = parts["payload"] // 2, parts["exponents"] + np.int8(1)


def zero_with_an_exponent(parts):
    parts["payload"][0], parts["exponents"][0] = 0, 3


BODIES = {
    "a coarser step than needed": ("int8", coarser),
    "-128": ("int8", put("payload", (0, 0), -128)),
    "beyond float32": ("int8", put("exponents", 0, 122)),
    "a zero record with an exponent": ("int8", zero_with_an_exponent),
    "-8": ("int4", put("payload", (0, 0), 0x18)),
    "a value beyond the last": ("int4", put("payload", (0, 3), 0x11)),
    "not a number": ("float32", put("payload", (1, 2), np.nan)),
    "infinity": ("float16", put("payload", (1, 2), np.inf)),
    "a negative record": ("int8", put("records", 0, -1)),
    "a record twice": ("int4", put("records", 0, 2)),
    "a negative label": ("float16", put("task_labels", (0, 0), -2)),
}


@pytest.mark.parametrize("name", BODIES)
def test_values_that_encode_never_sends_are_refused_under_their_right_checksum(name):
    wire, change = BODIES[name]
    data = encode(make(wire, shape=(5, 7)))
    assert resign(data, lambda parts: None) == data
    with pytest.raises(UplinkError, match=r"of its grid|finite|once|below"):
        decode(resign(data, change))


@pytest.mark.parametrize("wire", WIRES)
def test_every_truncation_and_extension_is_refused(wire):
    data = encode(make(wire))
    for end in range(len(data)):
        with pytest.raises(UplinkError):
            decode(data[:end])
    for extra in (b"\0", b" " * 8, data):
        with pytest.raises(UplinkError):
            decode(data + extra)


@pytest.mark.parametrize("wire", WIRES)
def test_thousands_of_random_mutations_are_refused_and_nothing_else_is_ever_raised(wire):
    data = encode(make(wire))
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for trial in range(3000):
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


def meta(**fields):
    return lambda head: head["__metadata__"].update(fields)


HEADERS = [
    lambda head: head.update(gradient={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
    lambda head: head["payload"].update(dtype="F64"),
    lambda head: head["payload"].update(dtype=["F32"]),
    lambda head: head["payload"].update(shape=[]),
    lambda head: head["payload"].update(shape=[5, 2, 3]),
    lambda head: head["payload"].update(data_offsets=[0, 8]),
    lambda head: head["records"].update(shape=[True]),
    lambda head: head["records"].update(shape=[5.0]),
    lambda head: head["records"].update(shape=[-5]),
    lambda head: head["records"].update(shape=[]),
    lambda head: head["records"].update(shape={"0": 5}),
    lambda head: head["records"].update(dtype="I64"),
    lambda head: head["task_labels"].update(shape=[5]),
    lambda head: head["task_labels"].update(shape=[5, 10**10]),
    lambda head: head["task_labels"].update(shape=[5, 10**300]),
    lambda head: head.update(exponents={"dtype": "I8", "shape": [5], "data_offsets": [0, 5]}),
    lambda head: head.pop("records"),
    lambda head: head.pop("__metadata__"),
    lambda head: head.update(payload=None),
    lambda head: head.update(__metadata__=[]),
    meta(shape="3,2,1,1,1,1"),
    meta(shape="2,3"),
    meta(shape="03,2"),
    meta(shape="3,-2"),
    meta(shape=""),
    meta(shape="2147483647,2147483647,2147483647"),
    meta(shape="9" * 400),
    meta(shape=[3, 2]),
    meta(epoch="4"),
    meta(epoch="1e3"),
    meta(epoch="\u0663"),
    meta(epoch=3),
    meta(epoch="9" * 1000),
    meta(batch="-1"),
    meta(batch=" 17"),
    meta(edge="65536"),
    meta(edge=None),
    meta(split="aux"),
    meta(split=["train"]),
    meta(wire="float16"),
    meta(wire="int8"),
    meta(wire="bfloat16"),
    meta(wire=[]),
    meta(run_id=7),
    meta(run_id="../../etc"),
    meta(run_id="\n"),
    meta(schema="privhier.release/1"),
    meta(schema="privhier.release/3"),
    meta(answer="please"),
    meta(checksum="0" * 32),
]


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_a_header_that_says_anything_else_is_refused(number):
    data = encode(make())
    assert repack(data, lambda head: None) == data
    with pytest.raises(UplinkError):
        decode(repack(data, HEADERS[number]))


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "a/b"}, {"run_id": "a\n"}, {"split": "aux"}, {"phase": "Joint"}, {"epoch": 2**31},
        {"batch": 2**31}, {"edge": 65_536}, {"shape": (5, 3, 2, 1, 1, 1, 1)},
    ],
)  # fmt: skip
def test_fields_out_of_range_are_refused_under_their_right_checksum(change):
    data = encode(make())
    start = 8 + int.from_bytes(data[:8], "little")
    layout = read_header(data[8:start])
    assert write_header(layout, data[start:]) == data[:start]
    with pytest.raises(UplinkError):
        decode(write_header(layout._replace(**change), data[start:]) + data[start:])


def test_duplicate_keys_spaces_and_other_ways_to_say_the_same_are_refused():
    data = encode(make())
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].rstrip()
    other = [
        text.replace(b'"epoch":"3"', b'"epoch":"3","epoch":"3"'),
        text.replace(b'"__metadata__"', b'"records":1,"__metadata__"'),
        text.replace(b":", b": ", 1),
        text.replace(b"joint", b"\\u006aoint"),
        text.replace(b"[5]", b"[5e0]"),
        text.replace(b"[5]", b"[NaN]"),
        text.replace(b"[5]", b"[-Infinity]"),
        b"\xef\xbb\xbf" + text,
    ]
    for changed in other:
        assert changed != text
        for end in (b"", b" " * (-len(changed) % 8)):
            with pytest.raises(UplinkError):
                decode((len(changed) + len(end)).to_bytes(8, "little") + changed + end + data[8 + length :])


def test_deep_and_huge_json_never_reaches_the_parser(monkeypatch):
    def parse(text, **options):
        raise AssertionError("parsed")

    monkeypatch.setattr(json, "loads", parse)
    for text in (b"[" * 4000, b'{"a":' * 600, b'{"__metadata__":' + b"[" * 2000 + b"]" * 2000 + b"}"):
        with pytest.raises(UplinkError, match="too many brackets"):
            decode(len(text).to_bytes(8, "little") + text + b" " * 64)


def test_a_message_that_would_grow_in_memory_is_refused_before_anything_is_allocated():
    """A megabyte of int4 values is eight of float32."""
    message = make("int4", shape=(5, 400_000))
    data = encode(message)
    assert len(data) < 1_001_000
    for limit in (2**20, 8_000_000):
        with pytest.raises(UplinkError, match="at most"):
            decode(data, max_bytes=limit)
        with pytest.raises(UplinkError, match="at most"):
            encode(message, max_bytes=limit)
    decode(data, max_bytes=8_000_400)
    tracemalloc.start()
    try:
        for shape in ("2000000000,2000000000", "2147483647", "1000000000"):
            with pytest.raises(UplinkError, match="at most"):
                decode(repack(data, meta(shape=shape)))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000  # copies of the bytes, made by this test
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_id": ""}, "run_id"),
        ({"run_id": "a/b"}, "letters, digits"),
        ({"phase": "Joint phase"}, "phase"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": 1.0}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"epoch": 2**31}, "epoch"),
        ({"batch": -1}, "batch"),
        ({"batch": np.int64(1)}, "batch"),
        ({"edge": 65_536}, "edge"),
        ({"edge": -1}, "edge"),
        ({"split": "aux"}, "train, val, test"),
        ({"split": None}, "train, val, test"),
        ({"wire": "int2"}, "float32, float16, int8, int4"),
        ({"wire": ["int8"]}, "float32, float16, int8, int4"),
        ({"records": np.array([1, 1, 2, 3, 4])}, "once"),
        ({"records": np.array([-1, 1, 2, 3, 4])}, "below 0"),
        ({"records": np.array([2**31, 1, 2, 3, 4])}, "above 2147483647"),
        ({"records": np.arange(5, dtype=np.int32)}, "int64"),
        ({"records": np.arange(4)}, r"\(4, ...\)"),
        ({"payload": np.zeros((5, 3))}, "a float32 array"),
        ({"payload": np.zeros((5, 3), np.float16)}, "a float32 array"),
        ({"payload": np.zeros(5, np.float32)}, "axes"),
        ({"payload": np.zeros((5, 0), np.float32)}, "axes"),
        ({"payload": np.full((5, 2), np.nan, np.float32)}, "finite"),
        ({"payload": np.full((5, 2), np.inf, np.float32)}, "finite"),
        ({"payload": [[1.0]] * 5}, "array"),
        ({"task_labels": np.zeros((4, 1), np.int64)}, "5 rows"),
        ({"task_labels": np.full((5, 1), -2)}, "below -1"),
        ({"task_labels": np.full((5, 1), 32_768)}, "above 32767"),
        ({"task_labels": np.zeros((5, 0), np.int64)}, "empty"),
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
