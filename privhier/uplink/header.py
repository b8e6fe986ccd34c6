"""The header of a message: what it says, as the JSON of a safetensors file, in one canonical form."""

from __future__ import annotations

import hashlib
import json
import math
import re
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from privhier.config.network import MOST_LETTERS
from privhier.uplink.grid import LIMITS
from privhier.uplink.letters import packed_bytes

SCHEMA = "privhier.release/2"
WIRES = {"float32": "F32", "float16": "F16", "int8": "I8", "int4": "U8", "letters": "U8"}
"""How values go over the wire, and the type of the tensor that holds them; two int4 values share a byte, and
letters are packed through the whole message."""
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
}
MAX_INT = 2**31 - 1
"""Largest record number, dimension, epoch and batch."""
MAX_AXES = 6
"""Of a payload, the records' included."""

_CHECKSUM = b'"checksum":""'
"""Stands in a header once: within a word, JSON escapes the quotation marks."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")


class Layout(NamedTuple):
    """What a header says, and all of it."""

    run_id: str
    split: str
    phase: str
    epoch: int
    batch: int
    edge: int
    wire: str
    shape: tuple[int, ...]
    n_tasks: int | None
    letters: int | None = None
    """K, where the wire carries letters, and nowhere else."""

    @property
    def values(self) -> int:
        """Values of one record's payload."""
        return math.prod(self.shape[1:])

    def tensors(self) -> list[tuple[str, str, list[int]]]:
        """Name, type and shape of every tensor, in the order of the body."""
        count, code, dims = self.shape[0], WIRES[self.wire], list(self.shape)
        if self.wire == "int4":
            dims = [count, (self.values + 1) // 2]
        elif self.letters is not None:
            dims = [packed_bytes(count * self.values, self.letters)]
        found = [("records", "I32", [count]), ("payload", code, dims)]
        if self.n_tasks is not None:
            found.append(("task_labels", "I16", [count, self.n_tasks]))
        if self.wire in LIMITS:
            found.append(("exponents", "I8", [count]))
        return found


def write_header(layout: Layout, body: bytes | memoryview) -> bytes:
    """Length and JSON, padded to eight bytes; the checksum covers all other fields and the body."""
    covered, before, after = _texts(layout)
    digest = hashlib.blake2b(covered, digest_size=16)
    digest.update(body)
    text = before + digest.hexdigest().encode() + after
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@lru_cache(maxsize=4)  # who sends a message, its uplink and who receives it ask for the same
def _texts(layout: Layout) -> tuple[bytes, bytes, bytes]:
    """What the checksum covers of a header, and the header's JSON before and after the checksum."""
    meta = {
        "schema": SCHEMA,
        "run_id": layout.run_id,
        "edge": str(layout.edge),
        "split": layout.split,
        "phase": layout.phase,
        "epoch": str(layout.epoch),
        "batch": str(layout.batch),
        "wire": layout.wire,
        "shape": ",".join(map(str, layout.shape[1:])),
    }
    if layout.letters is not None:
        meta["letters"] = str(layout.letters)
    head: dict[str, Any] = {"__metadata__": meta}
    start = 0
    for name, code, dims in layout.tensors():
        end = start + DTYPES[code].itemsize * math.prod(dims)
        head[name] = {"dtype": code, "shape": dims, "data_offsets": [start, end]}
        start = end
    covered = json.dumps(head).encode()
    meta["checksum"] = ""
    before, field, after = json.dumps(head, separators=(",", ":")).encode().partition(_CHECKSUM)
    return covered, before + field[:-1], field[-1:] + after


def read_header(text: bytes) -> Layout:
    """What a header says; raises ValueError, KeyError, TypeError or IndexError where it cannot be one."""
    # A canonical header has no more; parsing is then shallow whatever the bytes.
    if text.count(b"{") > 6 or text.count(b"[") > 8:
        raise ValueError("too many brackets")
    head = json.loads(
        text.decode("ascii"), parse_int=_number, parse_float=_refuse_number, parse_constant=_refuse_number
    )
    meta = head["__metadata__"]
    if meta["schema"] != SCHEMA:
        raise ValueError("another schema")
    words = [meta[name] for name in ("run_id", "split", "phase", "wire", "shape")]
    if not all(isinstance(word, str) for word in words) or meta["wire"] not in WIRES:
        raise TypeError("a field has the wrong type")
    count = head["records"]["shape"][0]
    n_tasks = head["task_labels"]["shape"][1] if "task_labels" in head else None
    shape = (count, *(_number(part) for part in meta["shape"].split(",", MAX_AXES)))
    if len(shape) > MAX_AXES:
        raise ValueError("too many dimensions")
    for number in (*shape, *(() if n_tasks is None else (n_tasks,))):
        if type(number) is not int or not 0 < number <= MAX_INT:
            raise ValueError("a dimension is not a positive integer")
    letters = _number(meta["letters"]) if meta["wire"] == "letters" else None
    if letters is not None and not 2 <= letters <= MOST_LETTERS:
        raise ValueError("an alphabet has 2 to 4096 letters")
    epoch, batch, edge = (_number(meta[name]) for name in ("epoch", "batch", "edge"))
    place = (meta["run_id"], meta["split"], meta["phase"], epoch, batch, edge)
    return Layout(*place, meta["wire"], shape, n_tasks, letters)


def _number(text: str) -> int:
    """At most ten digits, so that no number is large."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("a number is not an integer from 0 of at most ten digits")
    return int(text)


def _refuse_number(text: str) -> int:
    raise ValueError("a number is not an integer")
