"""How many bytes a message has, without making it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from privhier.config import ModelConfig, ReleaseConfig
from privhier.uplink.header import DTYPES, Layout, write_header
from privhier.uplink.letters import bits_of


@dataclass(frozen=True)
class ReleaseFormat:
    """What messages of one run look like.

    Attributes:
        shape: One record's release, ``(d,)`` or ``(C, h, w)``.
        wire: Type of its values on the wire.
        tasks: Columns of task labels in messages of training records.
        rows: Records of a message that releases a whole split.
        letters: K, where the wire carries letters.
    """

    shape: tuple[int, ...]
    wire: str = "float32"
    tasks: int = 1
    rows: int = 256
    letters: int | None = None

    @classmethod
    def of(
        cls, model: ModelConfig, release: ReleaseConfig, shape: tuple[int, ...], tasks: int, rows: int = 256
    ) -> ReleaseFormat:
        """Of a run with this configuration, whose releases have ``shape``."""
        letters = model.bottleneck.alphabet
        return cls(shape, "letters" if letters else release.quantize, tasks, rows, letters)

    def bytes_of(self, rows: int, *, split: str = "train", phase: str, epoch: int = 0, batch: int = 0) -> int:
        """Bytes of ``encode``'s message of ``rows`` records; training records carry labels."""
        # The header depends on how many digits these have, and not on which.
        return _bytes_of(self, rows, split, phase, 10 ** (len(str(epoch)) - 1), 10 ** (len(str(batch)) - 1))

    @property
    def bytes_per_record(self) -> float:
        """Of one release in a message of 128 training records, its share of the header included."""
        return self.bytes_of(128, phase="joint") / 128

    @property
    def payload_bytes_per_record(self) -> float:
        """Of one release alone: its values, or its letters, which take bits of a byte.

        Record numbers, labels, the header, and the bits that fill a message's last byte come on top.
        """
        if self.letters is not None:
            return math.prod(self.shape) * bits_of(self.letters) / 8
        layout = Layout("", "val", "", 0, 0, 0, self.wire, (1, *self.shape), None)
        tensors = {name: DTYPES[code].itemsize * math.prod(dims) for name, code, dims in layout.tensors()}
        return float(sum(tensors.values()) - tensors["records"])

    def of_values(self, count: int) -> ReleaseFormat:
        """The same messages with ``count`` float32 values in place of letters."""
        return replace(self, shape=(count,), wire="float32", letters=None)


@lru_cache(maxsize=4096)
def _bytes_of(form: ReleaseFormat, rows: int, split: str, phase: str, epoch: int, batch: int) -> int:
    tasks = form.tasks if split == "train" else None
    place = ("0" * 16, split, phase, epoch, batch, 0)
    layout = Layout(*place, form.wire, (rows, *form.shape), tasks, form.letters)
    body = sum(DTYPES[code].itemsize * math.prod(dims) for _, code, dims in layout.tensors())
    return len(write_header(layout, b"")) + body
