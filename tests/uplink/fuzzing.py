"""Hostile input for the uplink: bytes that no decoder may take, and clients that no cloud may believe.

Everything is drawn from one seed. ``Forge.messages`` gives bytes that are no message at all;
``Forge.attempts`` gives whole streams (a greeting, then frames) with at least one thing wrong. The forger
knows the format: half of what it writes carries the right checksum.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import math
import pickle
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from safetensors.numpy import load, save

from privhier.errors import UplinkError
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.uplink.chain import CHAIN_BYTES, START, digest, extend
from privhier.uplink.codec import ReleaseMessage, decode, encode
from privhier.uplink.frames import METHOD, PROTOCOL, Hello, decode_ack, encode_frame
from privhier.uplink.grid import rounded
from privhier.uplink.header import DTYPES, read_header, write_header
from privhier.uplink.inbox import Capacity, Inbox
from privhier.uplink.journal import Journal
from privhier.uplink.outgoing import OutgoingMessage, outgoing
from privhier.uplink.sizes import ReleaseFormat

RUN, CONFIG = "0123456789abcdef", hashlib.sha256(b"fuzz").hexdigest()
SHAPE, TASKS, EPOCHS = (3, 2), {"smiling": 2, "age": 4}, {"joint": 2}
BATCH, RECORDS = 5, {"train": 40, "val": 10, "test": 10}
WIRES = ("float32", "float16", "int8", "int4")
HELLO = Hello(CONFIG, RUN, 0, 1, SHAPE, "int8", TASKS, RECORDS, folder="5" * 32)

_NASTY: list[Any] = [
    None, True, False, -1, -(2**31), 2**31, 2**63, 2**64, 10**30, 10**4000, 0.5, 1e308, -0.0,
    math.nan, math.inf, "", " ", "a b", "\n", "\ud800", "\x00 ", "ä", "x " * 100, "9 " * 2000, "../ x",
    [], {}, [[]], [None], [True], ["F32"], {"0": 5}, [1e3], [10**400], [-5],
]  # fmt: skip
"""Values that no field may have: every string among them is outside of every field's alphabet."""


FORM = ReleaseFormat(SHAPE, HELLO.wire)
"""What this run's messages look like."""


def inbox(folder: Path, *, edges: int = HELLO.edges) -> Inbox:
    """What a cloud of this run would serve, with a queue that never fills."""
    return Inbox(
        config=CONFIG, run_id=RUN, form=FORM, capacity=Capacity(edges, 10**6),
        epochs=EPOCHS, journal=Journal(folder, sync=False), agree=lambda hello: None,
    )  # fmt: skip


def message(number: int, split: str = "train", epoch: int = 0, **changes: Any) -> ReleaseMessage:
    """Message ``number`` of a split and epoch, as an honest edge would send it."""
    rng = np.random.default_rng([number, epoch, len(split)])
    values = rng.normal(size=(BATCH, *SHAPE)).astype(np.float32)
    labels = np.stack([rng.integers(0, classes, BATCH) for classes in TASKS.values()], axis=1)
    wire = changes.get("wire", HELLO.wire)
    base = ReleaseMessage(
        RUN, split, "joint", epoch, number, np.arange(BATCH) + BATCH * number, rounded(values, wire),
        labels if split == "train" else None, wire,
    )  # fmt: skip
    return replace(base, **changes)


def upward(data: bytes) -> OutgoingMessage:
    """The same bytes as an edge without a release mechanism sends them: raw values, charged as such."""
    found = decode(data)
    mechanism, ledger = ReleaseMechanism("none", quantize=found.wire), Ledger(None)
    ledger.charge(found.split, len(found.records), found.phase, found.epoch, mechanism, "seeded")
    sent = outgoing(
        ledger,
        mechanism.sanitize(torch.from_numpy(found.payload), SeededNoise(0, "none")),
        run_id=found.run_id,
        split=found.split,
        phase=found.phase,
        epoch=found.epoch,
        batch=found.batch,
        records=found.records,
        task_labels=found.task_labels,
        edge=found.edge,
    )
    assert sent.data == data
    return sent


def honest() -> list[bytes]:
    """Every message of the run, in order: 24 of them."""
    return [
        encode(message(number, split, epoch))
        for epoch in range(EPOCHS["joint"])
        for split, count in RECORDS.items()
        for number in range(count // BATCH)
    ]


@functools.cache
def chains() -> tuple[bytes, ...]:
    """Running digest before each honest message, and after the last."""
    found = [START]
    for data in honest():
        found.append(extend(found[-1], digest(data)))
    return tuple(found)


def frame(number: int, data: bytes) -> bytes:
    """A numbered message of a client that knows what the cloud has."""
    known = chains()
    return encode_frame(number, data, known[min(number, len(known) - 1)])


@dataclass(frozen=True)
class Attempt:
    """One stream of a client.

    Attributes:
        kind: What is wrong with it.
        parts: What the client sends, in order.
        refused: Whether the cloud must say no; else it must take no notice.
    """

    kind: str
    parts: tuple[bytes, ...]
    refused: bool = True


class Forge:
    """Draws hostile bytes.

    Args:
        seed: The same seed gives the same bytes in the same order.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numpy = np.random.default_rng(seed)
        self._honest = honest()
        shapes = [(6,), (3, 2), (2, 1, 4), (7,)]
        self._bases = [
            encode(
                replace(
                    message(number, wire=wire),
                    payload=rounded(self._numpy.normal(size=(BATCH, *shape)).astype(np.float32), wire),
                    **({} if number % 2 else {"task_labels": None}),
                )
            )
            for wire in WIRES
            for number, shape in enumerate(shapes)
        ] + self._honest
        self._bases += [encode(self._spelled(number, *how)) for number, how in enumerate([(5, 3), (100, 1)])]
        self._known = set(self._bases)
        self._ways: dict[str, Callable[[bytes], bytes]] = {
            "flipped length": lambda data: self._flip(data, 0, 8),
            "flipped header": lambda data: self._flip(data, 8, _body(data)),
            "flipped body": lambda data: self._flip(data, _body(data), len(data)),
            "flipped anywhere": lambda data: self._flip(data, 0, len(data)),
            "truncated": lambda data: data[: self._random.randrange(len(data))],
            "extended": lambda data: data + self._bytes(1, 64),
            "cut out": self._cut_out,
            "put in": self._put_in,
            "overwritten": self._overwrite,
            "spliced": self._splice,
            "other length": self._other_length,
            "oversize header": self._oversize_header,
            "header field": lambda data: self._repack(data, sign=False),
            "signed header field": lambda data: self._repack(data, sign=True),
            "header repeated key": self._repeat_key,
            "header brackets": lambda data: _framed(self._brackets(), data),
            "header text": lambda data: _framed(self._random.choice(_TEXTS), data),
            "signed body": self._signed_body,
            "signed layout": self._signed_layout,
            "other format": self._other_format,
            "random": lambda data: self._bytes(0, 2000),
        }

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Without end: the kind, and bytes that are no message of any run; the kinds take turns."""
        while True:
            for kind, way in self._ways.items():
                data = way(self._random.choice(self._bases))
                if data not in self._known:
                    yield kind, data

    def attempts(self, following: Callable[[], int]) -> Iterator[Attempt]:
        """Without end: streams with something wrong, for a cloud that has introduced itself to ``HELLO``.

        Args:
            following: The number the cloud wants next of edge 0, as it is when an attempt is drawn.
        """
        junk, greetings = self.messages(), self.greetings()
        hello = HELLO.encode()
        while True:
            for _ in range(8):
                kind, data = next(junk)
                yield Attempt(f"message: {kind}", (hello, frame(following(), data)))
            yield self._misfit(following())
            yield from self._frames(following)
            kind, greeting = next(greetings)
            yield Attempt(f"hello: {kind}", (greeting, *self._random.choice([(), (self._honest[0],)])))

    def greetings(self) -> Iterator[tuple[str, bytes]]:
        """Without end: the kind, and bytes that are no greeting, or another one than ``HELLO``."""
        good = HELLO.encode()
        changes: list[dict[str, Any]] = [
            {"config": "0" * 64}, {"run_id": "other"}, {"run_id": ""}, {"edge": 1}, {"edges": 2},
            {"edge": -1}, {"edges": 0}, {"edges": 65_537}, {"shape": (2, 3)}, {"shape": ()},
            {"shape": (6, 1, 1, 1, 1, 1)}, {"shape": (3, 2**31)}, {"wire": "float32"}, {"wire": "pickle"},
            {"task_classes": {}}, {"task_classes": {"smiling": 1}}, {"task_classes": {"smiling": 10**9}},
            {"records": {"train": 1, "val": 1, "test": 1}}, {"records": {"train": 1}},
            {"records": {**RECORDS, "aux": 5}}, {"records": {**RECORDS, "train": 2**40}},
            {"protocol": PROTOCOL + 1}, {"protocol": "1"}, {"protocol": 1}, {"folder": "0" * 32},
            {"folder": "x"}, {"folder": "0" * 66}, {"folder": 5}, {"taken": -1}, {"taken": "1"},
            {"chain": ""}, {"chain": "0" * 63}, {"chain": "x" * 64}, {"chain": 0},
            {"records": {**RECORDS, "train": 2**28}}, {"records": {**RECORDS, "test": 2**31 - 1}},
        ]  # fmt: skip
        while True:  # of the edge's own identity only what it would never say
            fields = {**json.loads(good), **self._random.choice(changes)}
            mutated = self._mutated(json.loads(good))
            extra = {**fields, self._random.choice(["gradient", "weights", "\ud800", "", "__class__"]): 1}
            for kind, data in (
                ("other value", _dump(fields)),
                ("nasty value", _dump(mutated)),
                ("extra field", _dump(extra)),
                ("flipped", self._flip(good, 0, len(good))),
                ("truncated", good[: self._random.randrange(len(good))]),
                ("extended", good + self._bytes(1, 8)),
                ("blanks", good.replace(b",", b", ", self._random.randrange(1, 5))),
                ("oversize", good[:-1] + b" " * self._random.choice([16_384, 100_000]) + b"}"),
                ("brackets", self._brackets()),
                ("a message", self._random.choice(self._honest)),
                ("random", self._bytes(0, 500)),
            ):
                if not _same_edge(data):
                    yield kind, data

    def _misfit(self, following: int) -> Attempt:
        """A message that is right in itself and wrong here, where it would come next."""
        base = message(7, epoch=1)
        wide = rounded(self._numpy.normal(size=(BATCH, 2, 3)).astype(np.float32), "int8")
        many = np.arange(RECORDS["train"] + 1)
        marks = many[:, None] % [2, 4]
        values = rounded(self._numpy.normal(size=(len(many), *SHAPE)).astype(np.float32), "int8")
        labels = base.task_labels
        assert labels is not None
        kind, one = self._random.choice(
            [
                ("another run", replace(base, run_id="fedcba9876543210")),
                ("another edge", replace(base, edge=1)),
                ("another wire", message(7, epoch=1, wire="float16")),
                ("another shape", replace(base, payload=wide)),
                ("flat shape", replace(base, payload=wide.reshape(BATCH, 6))),
                ("phase not in the schedule", replace(base, phase="cloud")),
                ("phase of no schedule", replace(base, phase="gradient")),
                ("epoch after the last", replace(base, epoch=2)),
                ("epoch far away", replace(base, epoch=2**31 - 1)),
                ("labels missing", replace(base, task_labels=None)),
                ("labels too few", replace(base, task_labels=labels[:, :1])),
                ("labels too large", replace(base, task_labels=labels + 4)),
                ("labels not known", replace(base, task_labels=labels * 0 - 1)),
                ("labels of validation", replace(base, split="val")),
                ("too many records", replace(base, records=many, payload=values, task_labels=marks)),
            ]
        )
        return Attempt(f"misfit: {kind}", (HELLO.encode(), frame(following, encode(one))))

    def _frames(self, following: Callable[[], int]) -> Iterator[Attempt]:
        """Messages of this run under wrong numbers, and frames that hold none."""
        hello, good = HELLO.encode(), self._honest
        for kind in _FRAMES:
            now = following()
            due, later = good[min(now, len(good) - 1)], good[min(now + 1, len(good) - 1)]
            old = self._random.randrange(now) if now else 0
            if (kind in _OF_OLD and not now) or (kind in _OF_NEW and now + 1 >= len(good)):
                continue
            forged = replace(message(7, epoch=1), batch=10_000 + self._random.randrange(1000))
            gap = self._random.choice([1, 2, 255, 2**31, 2**63, 2**64 - 1 - now])
            frames = {
                "number ahead": [frame(now + gap, due)],
                "short": [self._bytes(0, 8)],
                "no number": [due],
                "greeting again": [hello],
                "two in one": [frame(now, due + due)],
                "reordered": [frame(now + 1, later), frame(now, due)],
                "replayed as new": [frame(now, good[old])],
                "number backwards": [now.to_bytes(8, "big") + chains()[now] + due],
                "forged under an old number": [frame(old, encode(forged))],
                "resent": [frame(old, good[old])],
                "wrong digest before": [encode_frame(now, due, self._random.randbytes(CHAIN_BYTES))],
                "old number, wrong digest": [
                    encode_frame(old, good[old], self._random.randbytes(CHAIN_BYTES))
                ],
            }
            yield Attempt(f"frame: {kind}", (hello, *frames[kind]), refused=kind != "resent")

    def _bytes(self, least: int, most: int) -> bytes:
        return self._random.randbytes(self._random.randint(least, most))

    def _flip(self, data: bytes, start: int, end: int) -> bytes:
        mutated = bytearray(data)
        for _ in range(self._random.randint(1, 4)):
            mutated[self._random.randrange(start, end)] ^= 1 << self._random.randrange(8)
        return bytes(mutated)

    def _span(self, data: bytes) -> tuple[int, int]:
        first, last = sorted(self._random.sample(range(len(data) + 1), 2))
        return first, last

    def _cut_out(self, data: bytes) -> bytes:
        first, last = self._span(data)
        return data[:first] + data[last:]

    def _put_in(self, data: bytes) -> bytes:
        first, last = self._span(data)
        return data[:last] + self._random.choice([data[first:last], self._bytes(1, 32)]) + data[last:]

    def _overwrite(self, data: bytes) -> bytes:
        first, last = self._span(data)
        return data[:first] + self._random.choice([b"\0", b"\xff", b" "]) * (last - first) + data[last:]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._bases)
        return data[: _body(data)] + other[_body(other) :]

    def _other_length(self, data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        near = length + self._random.choice([-8, -1, 1, 8])
        wild = self._random.choice([0, 1, 2**31, 2**32, 2**63, 2**64 - 1, self._random.getrandbits(64)])
        return self._random.choice([near, wild, wild]).to_bytes(8, "little") + data[8:]

    def _oversize_header(self, data: bytes) -> bytes:
        text = data[8 : _body(data)]
        size = self._random.choice([4097, 5000, 65_536, 2**20])
        return _framed(text + b" " * (size - len(text)), data)

    def _repack(self, data: bytes, *, sign: bool) -> bytes:
        head = self._mutated(json.loads(data[8 : _body(data)]))
        if sign and isinstance(head, dict) and isinstance(head.get("__metadata__"), dict):
            head["__metadata__"].pop("checksum", None)
            digest = hashlib.blake2b(_dump(head, separators=None), digest_size=16)
            digest.update(data[_body(data) :])
            head["__metadata__"]["checksum"] = digest.hexdigest()
        return _framed(_dump(head), data)

    def _mutated(self, tree: Any) -> Any:
        """The tree with a value, a key or an entry somewhere in it replaced, renamed, added or removed."""
        spots = list(_spots(tree))
        holder, key = self._random.choice(spots)
        action = self._random.random()
        if action < 0.6:
            holder[key] = self._random.choice(_NASTY)
        elif action < 0.75:
            del holder[key]
        elif isinstance(holder, dict):
            word = self._random.choice(["gradient", "weights", "", "\ud800", "__proto__", str(key).upper()])
            holder[word + " "] = holder.pop(key) if action < 0.9 else self._random.choice(_NASTY)
        else:
            holder.append(self._random.choice(_NASTY))
        return tree

    def _repeat_key(self, data: bytes) -> bytes:
        text = data[8 : _body(data)].rstrip()
        pairs = [(b'"__metadata__"', b"{}"), (b'"records"', b'{"shape":[1]}'), (b'"payload"', b"null")]
        key, value = self._random.choice(pairs)
        first = b"{" + key + b":" + value + b"," + text[1:]
        return _framed(self._random.choice([first, text[:-1] + b"," + key + b":" + value + b"}"]), data)

    def _brackets(self) -> bytes:
        n = self._random.choice([5, 50, 1000, 1900])
        deep = [b"[" * n, b"[" * n + b"]" * n, b'{"a":' * (n // 3), b'{"__metadata__":' + b"[" * n]
        return self._random.choice(deep)

    def _spelled(self, number: int, letters: int, groups: int) -> ReleaseMessage:
        """A message of letters."""
        payload = self._numpy.integers(0, letters, (BATCH, groups))
        return replace(message(number), wire="letters", letters=letters, payload=payload)

    def _signed_body(self, data: bytes) -> bytes:
        """Values that break a rule, under the right checksum."""
        start = _body(data)
        layout = read_header(data[8:start])
        parts = {name: tensor.copy() for name, tensor in load(data).items()}
        row = self._random.randrange(BATCH)
        ways: list[Callable[[], None]] = [
            lambda: parts["records"].__setitem__(row, self._random.randrange(-(2**31), 0)),
            lambda: parts["records"].__setitem__(row, parts["records"][row - 1]),
        ]
        flat = parts["payload"].reshape(BATCH, -1) if layout.letters is None else parts["payload"]
        if layout.letters is not None:
            ways.append(lambda: flat.__setitem__(0, 255))  # 7 of 5 letters, 127 of 100
        elif layout.wire.startswith("float"):
            ways += [
                lambda: flat.__setitem__((row, 0), self._random.choice([math.nan, math.inf, -math.inf])),
                lambda: flat.fill(math.nan),
            ]
        else:
            limit = 127 if layout.wire == "int8" else 7
            ways += [
                lambda: flat.__setitem__((row, 0), -128 if limit == 127 else flat[row, 0] & 0xF0 | 8),
                lambda: parts["exponents"].__setitem__(row, 127),
                lambda: flat.__setitem__(row, 0),  # a record of zeros has exponent 0
            ]
            parts["exponents"][parts["exponents"] == 0] = 1
        if "task_labels" in parts:
            ways.append(
                lambda: parts["task_labels"].__setitem__((row, 0), self._random.randrange(-(2**15), -1))
            )
        self._random.choice(ways)()
        body = b"".join(parts[name].astype(DTYPES[code]).tobytes() for name, code, _ in layout.tensors())
        return write_header(layout, body) + body

    def _signed_layout(self, data: bytes) -> bytes:
        """Fields that break a rule, under the right checksum."""
        start = _body(data)
        layout = read_header(data[8:start])
        count, *dims = layout.shape
        changes: list[dict[str, Any]] = [
            {"run_id": "a/b"}, {"run_id": "\ud800"}, {"run_id": "x" * 129}, {"run_id": ""}, {"split": "aux"},
            {"split": "TRAIN"}, {"phase": "Joint"}, {"phase": "x" * 33}, {"epoch": 2**31}, {"epoch": -1},
            {"batch": 2**31}, {"edge": 65_536}, {"shape": (count, *dims, 2)}, {"shape": (count + 1, *dims)},
            {"shape": (1, *dims)}, {"shape": (count, *dims, *[1] * 6)}, {"shape": (2**31 - 1, *dims)},
            {"shape": (count, 2**31 - 1, 2**31 - 1)}, {"shape": (count, 0)}, {"shape": (0, *dims)},
            {"n_tasks": 2**31 - 1}, {"n_tasks": (layout.n_tasks or 0) + 1}, {"n_tasks": 0},
        ]  # fmt: skip
        if layout.letters is None:
            changes.append({"wire": WIRES[WIRES.index(layout.wire) - 1]})
        else:
            changes += [{"wire": wire} for wire in WIRES]
            changes += [{"letters": letters} for letters in (None, 1, 4097, layout.letters // 4)]
        body = data[start:]
        return write_header(layout._replace(**self._random.choice(changes)), body) + body

    def _other_format(self, data: bytes) -> bytes:
        tensor = self._numpy.normal(size=(2, 3)).astype(np.float32)
        return self._random.choice(
            [
                pickle.dumps({"records": tensor}),
                gzip.compress(data, 1, mtime=0),
                save({"gradient": tensor}),
                save({"payload": tensor, "records": np.zeros(2, np.int32)}),
                save({"payload": tensor}, metadata={"schema": "privhier.release/2"}),
                b"",
                b"\0" * 64,
                b"\xff" * 64,
                data[8:],
                data[:8],
                data[::-1],
                data + data,
                encode_frame(0, data),
            ]
        )


_OF_OLD = ("replayed as new", "number backwards", "forged under an old number", "old number, wrong digest")
_OF_OLD = (*_OF_OLD, "resent")
_OF_NEW = ("number ahead", "two in one", "reordered", "no number", "wrong digest before")
_FRAMES = ("short", "greeting again", *_OF_NEW, *_OF_OLD)

_TEXTS = [
    b"{", b"{}", b"[]", b"null", b'""', b"NaN", b"-Infinity", b"1e999", b"9" * 4000, b"true", b"\0" * 16,
    b"{}" * 40, b'{"__metadata__":{}}', b'{"__metadata__":null,"records":{"shape":[5]}}', b"\xff\xfe{}",
    b'{"a":1' + b"0" * 3000 + b"}", b'"' + b"\\ud800" * 500 + b'"', '{"ä":1}'.encode("latin-1"),
    b"\xef\xbb\xbf{}",
]  # fmt: skip


def _same_edge(data: bytes) -> bool:
    """Whether a greeting is of the honest edge itself, whatever it says of how far it has come."""
    try:
        return Hello.decode(data).identity == HELLO.identity
    except UplinkError:
        return False


def _body(data: bytes) -> int:
    """Where a message's body begins."""
    return 8 + int.from_bytes(data[:8], "little")


def _framed(text: bytes, data: bytes) -> bytes:
    """Another header for a message's body, padded as it should be."""
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[_body(data) :]


def _dump(tree: Any, separators: tuple[str, str] | None = (",", ":")) -> bytes:
    """JSON as the codec writes it, huge integers and lone surrogates included."""
    return json.dumps(tree, separators=separators).encode()


def _spots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a tree that holds something."""
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _spots(value)


@dataclass(frozen=True)
class Answer:
    """What a client got for an attempt.

    Attributes:
        code: Status, e.g. ``INVALID_ARGUMENT``; ``OK`` where the stream simply ended.
        text: The refusal.
        wanted: Numbers the cloud acknowledged, the welcome included.
    """

    code: str
    text: str
    wanted: tuple[int, ...]

    @property
    def key(self) -> str:
        """The field that was refused, e.g. ``uplink.header``; else the status."""
        return self.text.split(":", 1)[0] if self.text.startswith("uplink.") else self.code


def knock(channel: grpc.Channel, parts: tuple[bytes, ...], *, timeout: float = 60, **options: Any) -> Answer:
    """Send the parts on one stream and say what came back."""
    wanted: list[int] = []
    try:
        for answer in channel.stream_stream(METHOD)(iter(parts), timeout=timeout, **options):
            wanted.append(decode_ack(answer).following)
    except grpc.RpcError as error:
        return Answer(error.code().name, str(error.details()), tuple(wanted))
    return Answer("OK", "", tuple(wanted))


def verdict(attempt: Attempt, answer: Answer, following: int) -> str | None:
    """What is wrong with how the cloud took an attempt; None: nothing.

    Args:
        attempt: What was sent.
        answer: What came back.
        following: The number the cloud wanted before.
    """
    if any(number != following for number in answer.wanted):
        return f"{attempt.kind}: acknowledged {answer.wanted}, wanted {following}"
    if not attempt.refused:
        return None if answer.code == "OK" else f"{attempt.kind}: {answer.code}: {answer.text}"
    typed = answer.code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION") and answer.text.startswith("uplink.")
    return None if typed else f"{attempt.kind}: no typed refusal but {answer.code}: {answer.text}"


def shout(port: int, data: bytes) -> None:
    """Send bytes that are neither TLS nor HTTP/2, and hang up."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        while line.recv(4096):
            pass


def noises(seed: int) -> Iterator[bytes]:
    """Without end: what scanners and broken clients send to a port."""
    rng = random.Random(seed)
    hello = bytes.fromhex("160301020001000300")
    while True:
        yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        yield rng.randbytes(rng.randint(1, 3000))
        yield hello + rng.randbytes(rng.randint(0, 600))
        yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(rng.randint(0, 300))
        yield b"\0" * rng.randint(1, 5000)
        yield b""
