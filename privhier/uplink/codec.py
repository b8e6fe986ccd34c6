"""The one message that goes up, as bytes: safetensors layout, bounded, checked, never unpickled.

There is no field for a gradient or a weight, and nothing answers: a cloud cannot steer the edge's
features (Pasquini, Ateniese and Bernaschi, 2021) because the protocol has no word for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.errors import UplinkError

SCHEMA = "privhier.release/1"
MAX_BYTES = 64 * 2**20
"""Default limit of one message: 64 MiB."""

_MAX_HEADER = 4096
_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PHASE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_INT = 2**31 - 1
_PAYLOAD_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_INT = np.dtype("<i8")

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReleaseMessage:
    """The releases of one batch of records.

    Attributes:
        run_id: Which run; letters, digits, ``_ . -``.
        phase: Which phase of the schedule, e.g. ``"joint"``; lower case.
        epoch: Which epoch of the phase, from 0.
        records: int64 ``(B,)`` record numbers, each once, not negative.
        payload: float32 or float16 ``(B, *release_shape)``, finite.
        task_labels: int64 ``(B, n_tasks)``, -1 for "not known", or None where labels stay on the edge.
    """

    run_id: str
    phase: str
    epoch: int
    records: npt.NDArray[np.int64]
    payload: Array
    task_labels: npt.NDArray[np.int64] | None = None


def encode(message: ReleaseMessage, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Turn a message into bytes.

    The bytes are a valid safetensors file (tensors ``records``, ``payload``, perhaps ``task_labels``;
    the rest in its metadata) in one canonical form: the same message gives the same bytes.

    Raises:
        UplinkError: A field breaks its rule, or the message would exceed ``max_bytes``.
    """
    _check_message(message)
    parts = [np.ascontiguousarray(message.records, dtype=_INT).tobytes()]
    n_tasks = None
    if message.task_labels is not None:
        n_tasks = message.task_labels.shape[1]
        parts.append(np.ascontiguousarray(message.task_labels, dtype=_INT).tobytes())
    code = "F16" if message.payload.dtype == np.float16 else "F32"
    parts.append(np.ascontiguousarray(message.payload, dtype=_PAYLOAD_DTYPES[code]).tobytes())
    body = b"".join(parts)
    fields = (message.run_id, message.phase, message.epoch)
    data = _header(*fields, code, message.payload.shape, n_tasks, body) + body
    if len(data) > max_bytes:
        raise _error(
            "size", len(data), f"a message may have at most {max_bytes} bytes", "Send smaller batches"
        )
    return data


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> ReleaseMessage:
    """Read a message; the exact inverse of ``encode``.

    Everything is checked before it is used: size, header, shapes, types, values, and a checksum over
    all of it (against accidents; it is no signature).

    Raises:
        UplinkError: The bytes are not exactly what ``encode`` gives for a valid message.
    """
    if not isinstance(data, bytes):
        raise _error("message", type(data).__name__, "must be bytes", "Pass what encode() returned")
    if not 8 < len(data) <= max_bytes:
        raise _error("size", len(data), f"a message has 9 to {max_bytes} bytes", "Resend it whole")
    length = int.from_bytes(data[:8], "little")
    if not 0 < length <= min(_MAX_HEADER, len(data) - 8):
        raise _error("header", length, f"must have 1 to {_MAX_HEADER} bytes", "Resend the message whole")
    try:
        head = json.loads(data[8 : 8 + length].decode("ascii"))
        meta = head["__metadata__"]
        fields = (meta["run_id"], meta["phase"], int(meta["epoch"]))
        code, shape = head["payload"]["dtype"], tuple(head["payload"]["shape"])
        n_tasks = head["task_labels"]["shape"][1] if "task_labels" in head else None
        if code not in _PAYLOAD_DTYPES or not all(isinstance(part, str) for part in fields[:2]):
            raise TypeError("a field has the wrong type")
        for number in (*shape, *(() if n_tasks is None else (n_tasks,))):
            if type(number) is not int or not 0 < number <= _MAX_INT:
                raise ValueError("a dimension is not a positive integer")
        if not shape:
            raise ValueError("the payload has no dimension")
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _error("header", "unreadable", f"must be a {SCHEMA} header ({error})", "Resend it") from error
    body = data[8 + length :]
    sizes = [8 * shape[0], 8 * shape[0] * (n_tasks or 0), _PAYLOAD_DTYPES[code].itemsize * math.prod(shape)]
    if sum(sizes) != len(body):
        raise _error("body", len(body), f"must have {sum(sizes)} bytes", "Resend the message whole")
    # Only one header belongs to these values and this body, so every other byte string is refused.
    if data[: 8 + length] != _header(*fields, code, shape, n_tasks, body):
        raise _error("checksum", "differs", "must belong to header and body", "Resend the message")
    labels = None
    if n_tasks is not None:
        labels = np.frombuffer(body, _INT, shape[0] * n_tasks, sizes[0]).reshape(shape[0], n_tasks)
        labels = labels.astype(np.int64)
    records = np.frombuffer(body, _INT, shape[0]).astype(np.int64)
    payload = np.frombuffer(body, _PAYLOAD_DTYPES[code], -1, sizes[0] + sizes[1]).reshape(shape)
    payload = payload.astype(payload.dtype.newbyteorder("="))
    message = ReleaseMessage(*fields, records, payload, labels)
    _check_message(message)
    return message


def _header(
    run_id: str, phase: str, epoch: int, code: str, shape: tuple[int, ...], n_tasks: int | None, body: bytes
) -> bytes:
    """Length and JSON, padded to eight bytes; the checksum covers all other fields and the body."""
    tensors: list[tuple[str, str, list[int], int]] = [("records", "I64", [shape[0]], 8 * shape[0])]
    if n_tasks is not None:
        tensors.append(("task_labels", "I64", [shape[0], n_tasks], 8 * shape[0] * n_tasks))
    tensors.append(("payload", code, list(shape), _PAYLOAD_DTYPES[code].itemsize * math.prod(shape)))
    meta = {"schema": SCHEMA, "run_id": run_id, "phase": phase, "epoch": str(epoch)}
    head: dict[str, Any] = {"__metadata__": meta}
    start = 0
    for name, dtype, dims, size in tensors:
        head[name] = {"dtype": dtype, "shape": dims, "data_offsets": [start, start + size]}
        start += size
    digest = hashlib.blake2b(json.dumps(head).encode(), digest_size=16)
    digest.update(body)
    meta["checksum"] = digest.hexdigest()
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _check_message(message: ReleaseMessage) -> None:
    if not isinstance(message.run_id, str) or not _RUN_ID.fullmatch(message.run_id):
        raise _error("run_id", message.run_id, "must be 1 to 128 of letters, digits, _ . -", "Rename the run")
    if not isinstance(message.phase, str) or not _PHASE.fullmatch(message.phase):
        raise _error(
            "phase", message.phase, "must be a lower-case word of at most 32 characters", "Rename it"
        )
    if type(message.epoch) is not int or not 0 <= message.epoch <= _MAX_INT:
        raise _error("epoch", message.epoch, "must be an integer from 0", "Count epochs from 0")
    _check_ints("records", message.records, 1, lowest=0)
    payload = message.payload
    if not isinstance(payload, np.ndarray) or payload.dtype not in (np.float32, np.float16):
        kind = getattr(payload, "dtype", type(payload).__name__)
        raise _error("payload", kind, "must be a float32 or float16 array", "Convert the release first")
    count = len(message.records)
    if not 2 <= payload.ndim <= 6 or payload.shape[0] != count or 0 in payload.shape:
        raise _error("payload", payload.shape, f"must be ({count}, ...) with 2 to 6 axes", "One row a record")
    if not np.isfinite(payload).all():
        raise _error("payload", "non-finite", "must be finite", "Release through ReleaseMechanism.sanitize")
    if np.unique(message.records).size != count:
        raise _error("records", "duplicates", "a record appears once a message", "Send one release a record")
    if message.task_labels is not None:
        _check_ints("task_labels", message.task_labels, 2, lowest=-1)
        if len(message.task_labels) != count:
            raise _error("task_labels", message.task_labels.shape, f"must have {count} rows", "One a record")


def _check_ints(name: str, values: object, ndim: int, *, lowest: int) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.int64 or values.ndim != ndim:
        kind = getattr(values, "dtype", type(values).__name__)
        raise _error(name, kind, f"must be an int64 array of {ndim} axes", "Convert it first")
    if values.size == 0 or values.min() < lowest:
        raise _error(name, values.shape, f"must not be empty, nor below {lowest}", "Send only real records")


def _error(field: str, value: object, rule: str, remedy: str) -> UplinkError:
    return UplinkError(key=f"uplink.{field}", value=value, rule=rule, remedy=remedy)
