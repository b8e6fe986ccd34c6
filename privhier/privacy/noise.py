"""Where noise comes from: a named stream of a seed, such a stream for each record, or the operating system.

All draw in float64 and round once. float32 generators build on 24-bit uniforms, so their Gaussians
end at 5.8 standard deviations; over a few thousand values a record that alone is worth a delta of 1e-5.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from privhier.errors import GuaranteeError
from privhier.seeding import stream_seed, torch_stream

_GOLDEN = 0x9E3779B97F4A7C15
_BLOCK = 2**14
"""Values drawn at a time: what lies between a word and its value stays in the cache."""


@runtime_checkable
class NoiseSource(Protocol):
    """Standard noise: unit scale, independent in every value and every call.

    Attributes:
        kind: ``"seeded"`` or ``"system"``, as ``privacy.noise_source`` names it.
    """

    kind: str

    def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal values, float32 on the CPU."""
        ...

    def laplace(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Laplace values of scale 1 (variance 2), float32 on the CPU."""
        ...

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform values in [0, 1), float64 on the CPU: for sampling and randomized responses."""
        ...


class SeededNoise:
    """Reproducible noise: every guarantee built on it is a simulation.

    Args:
        seed: The experiment's seed.
        stream: Names of the stream, e.g. ``("release", "joint", epoch, batch)``. Two sources of the
            same names give the **same** noise: name every release apart.

    Example:
        >>> a, b = SeededNoise(0, "release", 1), SeededNoise(0, "release", 1)
        >>> bool((a.gaussian((2, 3)) == b.gaussian((2, 3))).all())
        True
    """

    kind = "seeded"

    def __init__(self, seed: int, *stream: str | int) -> None:
        self._generator = torch_stream(seed, *stream)

    def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal values, float32 on the CPU; every call goes on in the stream."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float64).float()

    def laplace(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Laplace values of scale 1, float32 on the CPU; every call goes on in the stream."""
        size = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        negative = torch.rand(shape, generator=self._generator, dtype=torch.float64) < 0.5
        size = -torch.log1p(-size)
        return torch.where(negative, -size, size).float()

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform values in [0, 1), float64 on the CPU; every call goes on in the stream."""
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)


class RecordNoise:
    """Reproducible noise with a stream of its own for every record: who else is there changes nothing.

    Row i of what is drawn depends on seed, stream and ``records[i]`` only. Draws by position in a batch
    would move for every later record when one record is taken out, and by more than that record's own
    share: a guarantee for adding or removing a record could then not rest on them.

    A record's stream is SplitMix64 (Steele, Lea and Flood, 2014), whose n-th word is found without the
    ones before it, so that a whole batch is drawn at once. 63 bits of seed; not cryptographic.

    Args:
        seed: The experiment's seed.
        stream: Names of the stream. Two sources of the same names give a record the **same** noise.
        records: Record numbers ``(B,)``; every shape asked for must begin with B.

    Example:
        >>> both = RecordNoise(0, "edge", 1, records=np.array([4, 7])).gaussian((2, 3))
        >>> alone = RecordNoise(0, "edge", 1, records=np.array([7])).gaussian((1, 3))
        >>> bool((both[1] == alone[0]).all())
        True
    """

    kind = "seeded"

    def __init__(self, seed: int, *stream: str | int, records: npt.NDArray[np.int64]) -> None:
        key = np.full(1, stream_seed(seed, *stream), dtype=np.uint64)
        self._starts = _mixed(key + np.asarray(records).astype(np.uint64) * np.uint64(_GOLDEN))
        self._at = 1
        """The next word of every record's stream."""

    def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal values, float32 on the CPU (Box and Muller); every call goes on in the streams."""
        width = self._width(shape)
        half = width // 2 + width % 2
        values = np.empty((len(self._starts), 2 * half), dtype=np.float32)
        for rows, first, stop in self._blocks(half):
            radius = np.sqrt(-2 * np.log1p(-_uniform(self._words(rows, first, stop))))
            angle = 2 * math.pi * _uniform(self._words(rows, half + first, half + stop))
            values[rows, first:stop] = radius * np.cos(angle)
            values[rows, half + first : half + stop] = radius * np.sin(angle)
        self._at += 2 * half
        return torch.from_numpy(values[:, :width]).reshape(shape)

    def laplace(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Laplace values of scale 1, float32 on the CPU; every call goes on in the streams."""
        width = self._width(shape)
        values = np.empty((len(self._starts), width), dtype=np.float32)
        for rows, first, stop in self._blocks(width):
            values[rows, first:stop] = _laplace(self._words(rows, first, stop))
        self._at += width
        return torch.from_numpy(values).reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform values in [0, 1), float64 on the CPU; every call goes on in the streams."""
        width = self._width(shape)
        values = np.empty((len(self._starts), width))
        for rows, first, stop in self._blocks(width):
            values[rows, first:stop] = _uniform(self._words(rows, first, stop))
        self._at += width
        return torch.from_numpy(values).reshape(shape)

    def _width(self, shape: tuple[int, ...]) -> int:
        if not shape or shape[0] != len(self._starts):
            raise GuaranteeError(
                key="noise.records",
                value=shape,
                rule=f"noise was to be drawn for {len(self._starts)} records, one row each",
                remedy="Name the record of every row",
            )
        return math.prod(shape[1:])

    def _blocks(self, width: int) -> Iterator[tuple[slice, int, int]]:
        columns = max(1, min(width, _BLOCK))
        rows = max(1, _BLOCK // columns)
        for row in range(0, len(self._starts), rows):
            for first in range(0, width, columns):
                yield slice(row, row + rows), first, min(first + columns, width)

    def _words(self, rows: slice, first: int, stop: int) -> npt.NDArray[np.uint64]:
        turns = np.arange(self._at + first, self._at + stop, dtype=np.uint64) * np.uint64(_GOLDEN)
        return _mixed(self._starts[rows, None] + turns)


class SystemNoise:
    """Noise from the operating system's entropy. It holds no state: nothing to store, copy or log."""

    kind = "system"
    __slots__ = ()

    def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal values, float32 on the CPU (Box and Muller, 1958, on 53-bit uniforms)."""
        count = math.prod(shape)
        values = np.empty(count + count % 2, dtype=np.float32)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            half = len(block) // 2
            uniform = _uniform(_entropy(len(block)))
            radius = np.sqrt(-2 * np.log1p(-uniform[:half]))
            angle = 2 * math.pi * uniform[half:]
            block[:half] = radius * np.cos(angle)
            block[half:] = radius * np.sin(angle)
        return torch.from_numpy(values[:count]).reshape(shape)

    def laplace(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Laplace values of scale 1, float32 on the CPU (inverse distribution function)."""
        values = _laplace(_entropy(math.prod(shape)))
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform values in [0, 1), float64 on the CPU, 53 bits of entropy each."""
        return torch.from_numpy(_uniform(_entropy(math.prod(shape)))).reshape(shape)


def _entropy(count: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


def _uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Multiples of 2**-53 in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _laplace(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Laplace values of scale 1; the uniform is made of the upper 53 bits, so the lowest is the sign."""
    size = -np.log1p(-_uniform(words))
    return np.where(words & np.uint64(1), -size, size)


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's output function, in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words
