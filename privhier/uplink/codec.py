"""The one message that goes up, as bytes: safetensors layout, bounded, checked, never unpickled.

There is no field for a gradient or a weight, and nothing answers: a cloud cannot steer the edge's
features (Pasquini, Ateniese and Bernaschi, 2021) because the protocol has no word for it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from privhier.config.network import MOST_LETTERS
from privhier.errors import UplinkError
from privhier.uplink.grid import LIMITS, Wire, dequantize, is_canonical, pack, quantize, unpack
from privhier.uplink.header import DTYPES, MAX_AXES, MAX_INT, SCHEMA, WIRES, Layout, read_header, write_header
from privhier.uplink.letters import pack_letters, unpack_letters

MAX_BYTES = 64 * 2**20
"""Default limit of one message: 64 MiB."""
SPLITS = ("train", "val", "test")
"""Whose records go up."""

_MAX_HEADER = 4096
_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PHASE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_EDGE = 2**16 - 1
_MAX_LABEL = 2**15 - 1

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Payload = npt.NDArray[Any]
"""float32; int64 where the wire carries letters."""


@dataclass(frozen=True, eq=False)
class ReleaseMessage:
    """The releases of one batch of records.

    Attributes:
        run_id: Which run; letters, digits, ``_ . -``.
        split: Whose records: ``"train"``, ``"val"`` or ``"test"``.
        phase: Which phase of the schedule, e.g. ``"joint"``; lower case.
        epoch: Which epoch of the phase, from 0.
        batch: Which message of that split, phase and epoch, from 0.
        records: int64 ``(B,)`` record numbers, each once, 0 to 2**31 - 1.
        payload: float32 ``(B, *release_shape)``, finite, exactly representable on the wire; or letters,
            int64 ``(B, M)`` from 0 to K - 1.
        task_labels: int64 ``(B, n_tasks)``, -1 ("not known") to 32767, or None where labels stay on the
            edge.
        wire: How the payload's values are carried.
        edge: Which edge of the run, 0 to 65535.
        letters: K, 2 to 4,096, where ``wire`` is ``"letters"``; else None.
    """

    run_id: str
    split: str
    phase: str
    epoch: int
    batch: int
    records: IntArray
    payload: Payload
    task_labels: IntArray | None = None
    wire: Wire | Literal["letters"] = "float32"
    edge: int = 0
    letters: int | None = None

    @property
    def key(self) -> tuple[str, str, int, int]:
        """The message's place among those of its run and edge: split, phase, epoch, batch."""
        return self.split, self.phase, self.epoch, self.batch


def encode(message: ReleaseMessage, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Turn a message into bytes.

    The bytes are a valid safetensors file in one canonical form: the same message gives the same bytes.
    Its tensors are ``records`` (I32), ``payload`` (F32, F16, I8, or U8 holding two int4 values a byte, or
    letters as ``letters.py`` packs them), perhaps ``task_labels`` (I16) and, with int8 and int4,
    ``exponents`` (I8, one a record: a value is its integer times 2**exponent). The rest, the payload's true
    shape and K included, is in its metadata.

    Raises:
        UplinkError: A field breaks its rule, the payload is not exactly representable on the wire, or the
            message would exceed ``max_bytes``, as bytes or as arrays in memory.
    """
    _check_message(message)
    count, payload = len(message.records), message.payload
    n_tasks = None if message.task_labels is None else message.task_labels.shape[1]
    layout = Layout(
        message.run_id, message.split, message.phase, message.epoch, message.batch, message.edge,
        message.wire, payload.shape, n_tasks, message.letters,
    )  # fmt: skip
    _check_memory(layout, max_bytes)
    parts: dict[str, npt.NDArray[Any]] = {"records": message.records}
    if message.letters is not None:
        parts["payload"] = pack_letters(payload, message.letters)
    else:
        parts["payload"], exponents = _to_wire(payload.reshape(count, -1), message.wire)
        if exponents is not None:
            parts["exponents"] = exponents
    if message.task_labels is not None:
        parts["task_labels"] = message.task_labels
    body = b"".join(parts[name].astype(DTYPES[code]).tobytes() for name, code, _ in layout.tensors())
    data = write_header(layout, body) + body
    _check_size(len(data), max_bytes)
    return data


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> ReleaseMessage:
    """Read a message; the exact inverse of ``encode``.

    Everything is checked before it is used, and sizes before anything is allocated: size, header, shapes,
    types, values, and a checksum over all of it (against accidents; it is no signature).

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
        layout = read_header(data[8 : 8 + length])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _error("header", "unreadable", f"must be a {SCHEMA} header ({error})", "Resend it") from error
    _check_memory(layout, max_bytes)
    body = memoryview(data)[8 + length :]
    tensors = layout.tensors()
    wanted = sum(DTYPES[code].itemsize * math.prod(dims) for _, code, dims in tensors)
    if wanted != len(body):
        raise _error("body", len(body), f"must have {wanted} bytes", "Resend the message whole")
    # Only one header belongs to these values and this body, so every other byte string is refused.
    if data[: 8 + length] != write_header(layout, body):
        raise _error("checksum", "differs", "must belong to header and body", "Resend the message")
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, code, dims in tensors:
        arrays[name] = np.frombuffer(body, DTYPES[code], math.prod(dims), start).reshape(dims)
        start += arrays[name].nbytes
    message = ReleaseMessage(
        run_id=layout.run_id,
        split=layout.split,
        phase=layout.phase,
        epoch=layout.epoch,
        batch=layout.batch,
        records=arrays["records"].astype(np.int64),
        payload=(
            _from_wire(arrays["payload"], arrays.get("exponents"), layout)
            if layout.letters is None
            else _letters(arrays["payload"], layout.letters, layout)
        ),
        task_labels=arrays["task_labels"].astype(np.int64) if "task_labels" in arrays else None,
        wire=cast(Wire, layout.wire),
        edge=layout.edge,
        letters=layout.letters,
    )
    _check_message(message)
    return message


def _to_wire(flat: FloatArray, wire: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int8] | None]:
    """A payload ``(B, values)`` as it goes up, and its exponents where it has any."""
    carried: npt.NDArray[Any] = flat
    exponents, back = None, flat
    if wire == "float16":
        with np.errstate(over="ignore"):
            carried = flat.astype(np.float16)
        back = carried.astype(np.float32)
    elif wire in LIMITS:
        carried, exponents = quantize(flat, LIMITS[wire])
        back = dequantize(carried, exponents)
        carried = pack(carried) if wire == "int4" else carried
    if back is not flat and not np.array_equal(
        back.view(np.uint32), np.ascontiguousarray(flat).view(np.uint32)
    ):
        raise _error(
            "payload",
            f"{int((back != flat).sum())} of {flat.size} values",
            f"cannot be carried as {wire} without loss",
            "Release through ReleaseMechanism.sanitize with the same quantize",
        )
    return carried, exponents


def _from_wire(
    carried: npt.NDArray[Any], exponents: npt.NDArray[np.int8] | None, layout: Layout
) -> FloatArray:
    """Inverse of ``_to_wire``, float32 ``(B, *shape)``; refuses integers it would never have made."""
    if exponents is None:
        return carried.astype(np.float32)
    q, odd_end = carried.reshape(len(carried), -1), False
    if layout.wire == "int4":
        odd_end = layout.values % 2 == 1 and bool((carried[:, -1] >> 4).any())
        q = unpack(carried, layout.values)
    if odd_end or not is_canonical(q, exponents, LIMITS[layout.wire]):
        raise _error("payload", layout.wire, "must be integers and exponents of its grid", "Send encode()'s")
    return dequantize(q, exponents).reshape(layout.shape)


def _letters(packed: npt.NDArray[np.uint8], alphabet: int, layout: Layout) -> IntArray:
    """int64 ``(B, *shape)``; refuses bytes that ``encode`` would never have made."""
    letters = unpack_letters(packed, math.prod(layout.shape), alphabet)
    if letters is None:
        raise _error("payload", "letters", f"must be letters below {alphabet} and zeros", "Send encode()'s")
    return letters.reshape(layout.shape)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise _error("size", size, f"a message may have at most {max_bytes} bytes", "Send smaller batches")


def _check_memory(layout: Layout, max_bytes: int) -> None:
    """A message is small in memory too, where its few bits a value have become float32 and int64."""
    count, width = layout.shape[0], 4 if layout.letters is None else 8
    _check_size(width * count * layout.values + 8 * count * (1 + (layout.n_tasks or 0)), max_bytes)


def _check_message(message: ReleaseMessage) -> None:
    if not isinstance(message.run_id, str) or not _RUN_ID.fullmatch(message.run_id):
        raise _error("run_id", message.run_id, "must be 1 to 128 of letters, digits, _ . -", "Rename the run")
    if not isinstance(message.split, str) or message.split not in SPLITS:
        raise _error("split", message.split, f"must be one of {', '.join(SPLITS)}", "Send no other records")
    if not isinstance(message.phase, str) or not _PHASE.fullmatch(message.phase):
        raise _error(
            "phase", message.phase, "must be a lower-case word of at most 32 characters", "Rename it"
        )
    for name, value, most in (
        ("epoch", message.epoch, MAX_INT),
        ("batch", message.batch, MAX_INT),
        ("edge", message.edge, _MAX_EDGE),
    ):
        if type(value) is not int or not 0 <= value <= most:
            raise _error(name, value, f"must be an integer from 0 to {most}", "Count from 0")
    if not isinstance(message.wire, str) or message.wire not in WIRES:
        raise _error("wire", message.wire, f"must be one of {', '.join(WIRES)}", "Use release.quantize")
    _check_ints("records", message.records, 1, lowest=0, highest=MAX_INT)
    count = len(message.records)
    if message.wire == "letters":
        _check_letters(message.payload, count, message.letters)
    else:
        _check_values(message.payload, count)
        if message.letters is not None:
            raise _error("letters", message.letters, "is for the wire 'letters' only", "Leave it out")
    if np.unique(message.records).size != count:
        raise _error("records", "duplicates", "a record appears once a message", "Send one release a record")
    if message.task_labels is not None:
        _check_ints("task_labels", message.task_labels, 2, lowest=-1, highest=_MAX_LABEL)
        if len(message.task_labels) != count:
            raise _error("task_labels", message.task_labels.shape, f"must have {count} rows", "One a record")


def _check_values(payload: object, count: int) -> None:
    if not isinstance(payload, np.ndarray) or payload.dtype != np.float32:
        kind = getattr(payload, "dtype", type(payload).__name__)
        raise _error("payload", kind, "must be a float32 array", "Convert the release first")
    if not 2 <= payload.ndim <= MAX_AXES or payload.shape[0] != count or 0 in payload.shape:
        rule = f"must be ({count}, ...) with 2 to {MAX_AXES} axes"
        raise _error("payload", payload.shape, rule, "One row a record")
    if not np.isfinite(payload).all():
        raise _error("payload", "non-finite", "must be finite", "Release through ReleaseMechanism.sanitize")


def _check_letters(payload: object, count: int, alphabet: object) -> None:
    if type(alphabet) is not int or not 2 <= alphabet <= MOST_LETTERS:
        rule = f"must be an integer from 2 to {MOST_LETTERS}"
        raise _error("letters", alphabet, rule, "Say how many letters there are")
    _check_ints("payload", payload, 2, lowest=0, highest=alphabet - 1)
    if len(cast(IntArray, payload)) != count:
        shape = cast(IntArray, payload).shape
        raise _error("payload", shape, f"must be ({count}, M) letters", "One row a record")


def _check_ints(name: str, values: object, ndim: int, *, lowest: int, highest: int) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.int64 or values.ndim != ndim:
        kind = getattr(values, "dtype", type(values).__name__)
        raise _error(name, kind, f"must be an int64 array of {ndim} axes", "Convert it first")
    if values.size == 0 or values.min() < lowest or values.max() > highest:
        rule = f"must not be empty, below {lowest} or above {highest}"
        raise _error(name, values.shape, rule, "Send only real records")


def _error(field: str, value: object, rule: str, remedy: str) -> UplinkError:
    return UplinkError(key=f"uplink.{field}", value=value, rule=rule, remedy=remedy)
