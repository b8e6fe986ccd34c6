"""What goes over the wire around a message: one greeting up, then numbered frames; 41 bytes down.

An acknowledgement is a kind, a number and the running digest of what was acknowledged, which the edge has
computed already and compares. There is no field for a gradient, a weight or a label, so there is nothing a
cloud could say to steer the edge.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from privhier.errors import UplinkError
from privhier.uplink.chain import CHAIN_BYTES, START

PROTOCOL = 2
"""2: greeting, frames and acknowledgements carry a running digest of what was sent."""
MAX_HELLO = 16 * 2**10
METHOD = "/privhier.Uplink/Send"
_FRAME = struct.Struct(f"<Q{CHAIN_BYTES}s")
_ACK = struct.Struct(f"<BQ{CHAIN_BYTES}s")
FRAME_HEADER = _FRAME.size
ACK_BYTES = _ACK.size
FAREWELL = b"farewell"
"""Instead of a message: nothing more comes; an objection, where the running digest is not the cloud's."""
_WELCOME, _TAKEN = 0, 1
_DIGITS = re.compile(r"[0-9a-f]*")
_SPLITS = ("train", "val", "test")
_LARGEST = 2**31 - 1
_MOST_CLASSES = 4096
_MOST_RECORDS = 2**28


@dataclass(frozen=True)
class Hello:
    """The edge's greeting: what both sides must agree on before anything else goes up.

    Attributes:
        config: SHA-256 of the shared part of the configuration, 64 hexadecimal digits.
        run_id: Which run.
        edge: Which edge of the run, from 0.
        edges: How many edges the run has.
        shape: One record's release, ``(d,)`` or ``(C, h, w)``.
        wire: Type of its values on the wire.
        task_classes: Task attribute to its number of classes, in column order.
        records: Split to this edge's number of records.
        folder: Drawn once for the edge's folder, hexadecimal: tells two edges under one number apart.
        taken: How many of its messages this edge has seen acknowledged.
        chain: Running digest after those, hexadecimal.
        protocol: Version of this protocol.
    """

    config: str
    run_id: str
    edge: int
    edges: int
    shape: tuple[int, ...]
    wire: str
    task_classes: Mapping[str, int]
    records: Mapping[str, int]
    folder: str = ""
    taken: int = 0
    chain: str = START.hex()
    protocol: int = PROTOCOL

    @property
    def identity(self) -> Hello:
        """What an edge says of itself whenever it greets: all but how far it has come."""
        return replace(self, taken=0, chain=START.hex())

    def encode(self) -> bytes:
        """Canonical JSON; raises ``UplinkError`` if it would be too long."""
        data = json.dumps({**asdict(self), "shape": list(self.shape)}, separators=(",", ":")).encode()
        if len(data) > MAX_HELLO:
            raise frame_error("hello", len(data), f"may have at most {MAX_HELLO} bytes")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """Read a greeting; raises ``UplinkError`` on anything but what ``encode`` gives."""
        if not isinstance(data, bytes) or not 2 <= len(data) <= MAX_HELLO:
            raise frame_error("hello", len(data), f"must have 2 to {MAX_HELLO} bytes")
        try:
            fields = json.loads(data.decode("ascii"))
            if not isinstance(fields, dict):
                raise TypeError("it is no mapping")
            if fields.get("protocol") != PROTOCOL:
                raise frame_error("protocol", fields.get("protocol"), f"the cloud speaks version {PROTOCOL}")
            found = cls(**{**fields, "shape": tuple(fields["shape"])})
            found._check()
            again = found.encode()
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
            raise frame_error("hello", "unreadable", f"must be a greeting ({error})") from error
        if again != data:
            raise frame_error("hello", "not canonical", "must be exactly what Hello.encode gives")
        return found

    def _check(self) -> None:
        for text in (self.config, self.run_id, self.wire):
            if not isinstance(text, str) or not 0 < len(text) <= 128:
                raise ValueError("a name must have 1 to 128 characters")
        if not isinstance(self.folder, str) or len(self.folder) > 64 or not _DIGITS.fullmatch(self.folder):
            raise ValueError("folder must be at most 64 hexadecimal digits")
        if len(self.chain) != 2 * CHAIN_BYTES or not _DIGITS.fullmatch(self.chain):
            raise ValueError(f"chain must be {2 * CHAIN_BYTES} hexadecimal digits")
        numbers: list[Any] = [self.edge, self.edges, self.taken, *self.shape]
        numbers += [*self.task_classes.values(), *self.records.values()]
        if any(type(number) is not int or not 0 <= number <= _LARGEST for number in numbers):
            raise ValueError("a number is none, or out of range")
        if not 1 <= len(self.shape) <= 5 or 0 in self.shape:
            raise ValueError("a release has 1 to 5 axes, none of them empty")
        if not self.edge < self.edges <= 65536:
            raise ValueError("edge must be below edges, at most 65536 of them")
        if not 1 <= len(self.task_classes) <= 256:
            raise ValueError("a run has 1 to 256 tasks")
        if any(not 2 <= classes <= _MOST_CLASSES for classes in self.task_classes.values()):
            raise ValueError(f"a task has 2 to {_MOST_CLASSES} classes")
        if any(not 1 <= records <= _MOST_RECORDS for records in self.records.values()):
            raise ValueError(f"a split has 1 to {_MOST_RECORDS} records")
        if tuple(self.records) != _SPLITS:
            raise ValueError(f"records must count {', '.join(_SPLITS)}")


class Frame(NamedTuple):
    """A numbered message.

    Attributes:
        sequence: Its number.
        chain: Running digest of everything before it.
        message: The message, or ``FAREWELL``.
    """

    sequence: int
    chain: bytes
    message: bytes


class Ack(NamedTuple):
    """What is on the cloud's disk: everything below ``following``, whose running digest is ``chain``."""

    following: int
    chain: bytes


def encode_frame(sequence: int, message: bytes, chain: bytes = START) -> bytes:
    """Eight bytes of little-endian sequence number, 32 of the running digest before it, the message."""
    return _FRAME.pack(sequence, chain) + message


def decode_frame(data: bytes, *, max_bytes: int) -> Frame:
    """Inverse of ``encode_frame``; raises ``UplinkError`` for a frame that cannot hold a message."""
    if not isinstance(data, bytes) or not FRAME_HEADER < len(data) <= FRAME_HEADER + max_bytes:
        raise frame_error(
            "frame", len(data), f"must have {FRAME_HEADER + 1} to {FRAME_HEADER + max_bytes} bytes"
        )
    sequence, chain = _FRAME.unpack_from(data)
    return Frame(sequence, chain, data[FRAME_HEADER:])


def encode_ack(ack: Ack, *, welcome: bool = False) -> bytes:
    """A kind, eight bytes of little-endian number, 32 of running digest."""
    return _ACK.pack(_WELCOME if welcome else _TAKEN, *ack)


def decode_ack(data: bytes) -> Ack:
    """Inverse of ``encode_ack``; raises ``UplinkError`` for anything else."""
    if not isinstance(data, bytes) or len(data) != ACK_BYTES or data[0] not in (_WELCOME, _TAKEN):
        raise frame_error("acknowledgement", len(data), f"must be {ACK_BYTES} bytes of a known kind")
    _, following, chain = _ACK.unpack(data)
    return Ack(following, chain)


def frame_error(field: str, value: object, rule: str) -> UplinkError:
    """A refusal that names the field, the value and the rule."""
    return UplinkError(
        key=f"uplink.{field}", value=value, rule=rule, remedy="Use the same version and configuration on both"
    )
