"""Letters on the wire: the documented packing, round trips, and a decoder that takes nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load

from privhier.errors import UplinkError
from privhier.uplink.chain import START
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.frames import Frame
from privhier.uplink.header import read_header, write_header
from privhier.uplink.letters import bits_of, pack_letters, packed_bytes, unpack_letters
from privhier.uplink.sizes import ReleaseFormat

ALPHABETS = [2, 3, 4, 5, 16, 17, 100, 256, 257, 1000, 4096]


def make(alphabet: int = 5, rows: int = 5, groups: int = 3, labels: bool = True) -> ReleaseMessage:
    rng = np.random.default_rng(alphabet)
    payload = rng.integers(0, alphabet, (rows, groups))
    payload[0, 0], payload[-1, -1] = alphabet - 1, 0
    return ReleaseMessage(
        run_id="utk-letters.0",
        split="train",
        phase="cloud",
        epoch=0,
        batch=17,
        records=rng.permutation(100_000)[:rows],
        payload=payload,
        task_labels=rng.integers(-1, 4, (rows, 2)) if labels else None,
        wire="letters",
        edge=3,
        letters=alphabet,
    )


def parts_of(data: bytes) -> tuple[dict, bytes]:
    """A message's header as plain data, and its body."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def repack(data: bytes, change) -> bytes:
    """Its header rewritten, as someone who knows the format but not the rules would."""
    head, body = parts_of(data)
    change(head)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def resign(data: bytes, body: bytes, **layout) -> bytes:
    """Another body and other fields under the checksum that belongs to them."""
    length = int.from_bytes(data[:8], "little")
    return write_header(read_header(data[8 : 8 + length])._replace(**layout), body) + body


# The packing


def by_definition(letters: np.ndarray, alphabet: int) -> bytes:
    """The stream as text of bits, lowest bit first, cut into bytes."""
    width = math.ceil(math.log2(alphabet))
    stream = "".join(format(int(letter), f"0{width}b")[::-1] for letter in letters.flat)
    stream += "0" * (-len(stream) % 8)
    return bytes(int(stream[start : start + 8][::-1], 2) for start in range(0, len(stream), 8))


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_packing_is_as_documented_and_comes_back(alphabet):
    assert bits_of(alphabet) == math.ceil(math.log2(alphabet))
    for count in (1, 2, 3, 7, 8, 9, 64, 1001):
        letters = np.random.default_rng(count).integers(0, alphabet, count)
        packed = pack_letters(letters, alphabet)
        assert packed.tobytes() == by_definition(letters, alphabet)
        assert len(packed) == packed_bytes(count, alphabet) == math.ceil(count * bits_of(alphabet) / 8)
        np.testing.assert_array_equal(unpack_letters(packed, count, alphabet), letters)


def test_an_example_by_hand():
    """K = 5, three bits each: 4, 1, 3 are 001 100 110 lowest bit first, so the bytes 0b11001100 and 0b0."""
    assert pack_letters(np.array([4, 1, 3]), 5).tolist() == [0b11001100, 0]
    assert pack_letters(np.array([4095, 0]), 4096).tolist() == [255, 15, 0]


@pytest.mark.parametrize("alphabet", [3, 5, 100, 1000])
def test_every_byte_string_is_one_sequence_of_letters_or_none(alphabet):
    """What is unpacked packs to the same bytes again; letters beyond the alphabet and filling bits do not."""
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(2000):
        count = int(rng.integers(1, 4))
        packed = np.frombuffer(rng.bytes(packed_bytes(count, alphabet)), np.uint8)
        letters = unpack_letters(packed, count, alphabet)
        if letters is not None:
            kept += 1
            assert pack_letters(letters, alphabet).tobytes() == packed.tobytes()
    assert 0 < kept < 2000


# Messages


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize(("rows", "groups"), [(5, 1), (1, 1), (3, 7), (256, 4)])
@pytest.mark.parametrize("labels", [True, False])
def test_a_message_survives_the_wire_bit_for_bit(alphabet, rows, groups, labels):
    message = make(alphabet, rows, groups, labels)
    data = encode(message)
    back = decode(data)
    for field in dataclasses.fields(ReleaseMessage):
        sent, got = getattr(message, field.name), getattr(back, field.name)
        if isinstance(sent, np.ndarray):
            assert (got.dtype, got.shape, got.tobytes()) == (np.int64, sent.shape, sent.tobytes())
            assert got.flags.writeable
        else:
            assert got == sent
    assert encode(back) == data


def test_the_bytes_are_plain_safetensors_with_the_alphabet_in_the_metadata():
    data = encode(make(100, rows=5, groups=3))
    assert load(data)["payload"].dtype == np.uint8
    assert load(data)["payload"].shape == (math.ceil(5 * 3 * 7 / 8),)
    meta = parts_of(data)[0]["__metadata__"]
    assert (meta["wire"], meta["letters"], meta["shape"]) == ("letters", "100", "3")


@pytest.mark.parametrize(("alphabet", "size"), [(2, 0.125), (16, 0.5), (100, 0.875), (256, 1), (4096, 1.5)])
def test_a_record_costs_its_bits_and_nothing_more(alphabet, size):
    """Beside the record's number, its labels and a share of the header."""
    one, two = (len(parts_of(encode(make(alphabet, rows, 1)))[1]) for rows in (256, 512))
    assert two - one == 256 * (size + 4 + 2 * 2)
    assert len(encode(make(alphabet, 256, 1))) - one < 600


@pytest.mark.parametrize("alphabet", [2, 16, 100, 4096])
@pytest.mark.parametrize("rows", [1, 128, 255])
def test_sizes_are_known_without_a_message(alphabet, rows):
    form = ReleaseFormat((3,), "letters", tasks=2, letters=alphabet)
    message = dataclasses.replace(make(alphabet, rows, 3), run_id="0" * 16)
    assert form.bytes_of(rows, phase="cloud", batch=17) == len(encode(message))


def test_other_wires_are_what_they_were():
    """The same bytes as before there were letters: no field, no word of them."""
    payload = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = encode(ReleaseMessage("run", "val", "joint", 0, 0, np.array([4, 2]), payload))
    assert b"letters" not in data
    assert sorted(parts_of(data)[0]["__metadata__"]) == sorted(
        ["schema", "run_id", "edge", "split", "phase", "epoch", "batch", "wire", "shape", "checksum"]
    )


# What is refused


def test_letters_beyond_the_alphabet_are_refused_under_their_right_checksum():
    data = encode(make(5, labels=False))
    body = parts_of(data)[1]
    start = len(body) - packed_bytes(15, 5)
    assert resign(data, body) == data
    for place, value in ((start, 0b111), (start + 1, 0xFF), (len(body) - 1, 0x80), (len(body) - 1, 0xFF)):
        spoiled = bytearray(body)
        spoiled[place] |= value
        with pytest.raises(UplinkError, match="letters below 5 and zeros"):
            decode(resign(data, bytes(spoiled)))


@pytest.mark.parametrize(
    "change",
    [
        {"letters": None}, {"letters": 4}, {"letters": 9}, {"letters": 4097}, {"letters": 2**31 - 1},
        {"shape": (5, 3, 1)}, {"shape": (5, 1, 3)}, {"wire": "int4"}, {"wire": "float32"}, {"wire": "int8"},
    ],
)  # fmt: skip
def test_other_alphabets_and_shapes_are_refused_under_their_right_checksum(change):
    data = encode(make(5, labels=False))
    with pytest.raises(UplinkError):
        decode(resign(data, parts_of(data)[1], **change))


def meta(**fields):
    return lambda head: head["__metadata__"].update(fields)


HEADERS = {
    "no alphabet": lambda head: head["__metadata__"].pop("letters"),
    "one letter": meta(letters="1"),
    "none": meta(letters="0"),
    "too many": meta(letters="4097"),
    "huge": meta(letters="9" * 400),
    "a number": meta(letters=5),
    "a list": meta(letters=["5"]),
    "leading zero": meta(letters="05"),
    "minus": meta(letters="-5"),
    "another": meta(letters="6"),
    "another script": meta(letters="\u0665"),
    "int4": meta(wire="int4"),
    "float32": meta(wire="float32"),
    "maps": meta(shape="3,1"),
    "wider": meta(shape="4"),
    "huge shape": meta(shape="2147483647"),
    "dtype": lambda head: head["payload"].update(dtype="I8"),
    "rows": lambda head: head["payload"].update(shape=[5, 2]),
    "exponents": lambda head: head.update(exponents={"dtype": "I8", "shape": [5], "data_offsets": [0, 5]}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_says_anything_else_is_refused(name):
    data = encode(make(5))
    assert repack(data, lambda head: None) == data
    with pytest.raises(UplinkError):
        decode(repack(data, HEADERS[name]))


def test_letters_on_another_wire_are_refused():
    data = encode(ReleaseMessage("run", "val", "joint", 0, 0, np.array([4]), np.ones((1, 3), np.float32)))
    with pytest.raises(UplinkError):
        decode(repack(data, meta(letters="5")))
    with pytest.raises(UplinkError, match="must belong to header and body"):
        decode(resign(data, parts_of(data)[1], letters=5))


def test_every_truncation_and_extension_is_refused():
    data = encode(make(5))
    for end in range(len(data)):
        with pytest.raises(UplinkError):
            decode(data[:end])
    for extra in (b"\0", b" " * 8, data):
        with pytest.raises(UplinkError):
            decode(data + extra)


@pytest.mark.parametrize("alphabet", [4, 100])
def test_thousands_of_random_mutations_are_refused_and_nothing_else_is_ever_raised(alphabet):
    data = encode(make(alphabet))
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for trial in range(3000):
        mutated = bytearray(data)
        limit = (8, header, len(data))[trial % 3]
        for _ in range(int(rng.integers(1, 5))):
            mutated[rng.integers(0, limit)] ^= int(rng.integers(1, 256))
        if bytes(mutated) == data:
            continue
        with pytest.raises(UplinkError):
            decode(bytes(mutated))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"letters": None}, "from 2 to 4096"),
        ({"letters": 1}, "from 2 to 4096"),
        ({"letters": 4097}, "from 2 to 4096"),
        ({"letters": 5.0}, "from 2 to 4096"),
        ({"letters": True}, "from 2 to 4096"),
        ({"letters": 4}, "above 3"),
        ({"payload": np.full((5, 3), 5)}, "above 4"),
        ({"payload": np.full((5, 3), -1)}, "below 0"),
        ({"payload": np.zeros((5, 3), np.float32)}, "int64"),
        ({"payload": np.zeros((5, 3), np.int32)}, "int64"),
        ({"payload": np.zeros(5, np.int64)}, "2 axes"),
        ({"payload": np.zeros((5, 3, 1), np.int64)}, "2 axes"),
        ({"payload": np.zeros((4, 3), np.int64)}, r"\(5, M\)"),
        ({"payload": np.zeros((5, 0), np.int64)}, "empty"),
        ({"payload": [[1, 2, 3]] * 5}, "int64"),
        ({"wire": "float32"}, "float32 array"),
        ({"wire": "int4", "payload": np.zeros((5, 3), np.float32)}, "'letters' only"),
    ],
)
def test_a_message_that_breaks_a_rule_is_not_encoded(change, words):
    with pytest.raises(UplinkError, match=words):
        encode(dataclasses.replace(make(5), **change))


def test_a_message_that_would_grow_in_memory_is_refused_before_anything_is_allocated():
    """A megabyte of single bits is 64 of int64."""
    message = make(2, rows=5, groups=400_000, labels=False)
    data = encode(message)
    assert len(data) < 251_000
    for limit in (2**20, 16_000_000):
        with pytest.raises(UplinkError, match="at most"):
            decode(data, max_bytes=limit)
        with pytest.raises(UplinkError, match="at most"):
            encode(message, max_bytes=limit)
    decode(data, max_bytes=16_000_100)
    tracemalloc.start()
    try:
        for shape in ("2000000000,2000000000", "2147483647", "1000000000"):
            with pytest.raises(UplinkError, match="at most"):
                decode(repack(data, meta(shape=shape)))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # copies of the bytes, made by this test
    finally:
        tracemalloc.stop()


def test_a_cloud_takes_letters_of_its_own_alphabet_alone(fuzzing, tmp_path, monkeypatch):
    """Five and six letters take as many bits: only the alphabet that was agreed on tells them apart."""
    form = ReleaseFormat((3,), "letters", len(fuzzing.TASKS), letters=6)
    monkeypatch.setattr(fuzzing, "FORM", form)
    inbox, hello = fuzzing.inbox(tmp_path), dataclasses.replace(fuzzing.HELLO, shape=(3,), wire="letters")
    inbox.greet(hello)

    def frame(alphabet: int) -> Frame:
        payload = np.arange(15, dtype=np.int64).reshape(5, 3) % 5
        changes = {"payload": payload, "wire": "letters", "letters": alphabet}
        return Frame(0, START, encode(dataclasses.replace(fuzzing.message(0), **changes)))

    for alphabet in (5, 7):
        with pytest.raises(UplinkError, match="this run has 6"):
            inbox.take(hello, frame(alphabet))
    assert len(inbox.journal) == 0
    inbox.take(hello, frame(6))
    assert len(inbox.journal) == 1
    inbox.journal.close()
