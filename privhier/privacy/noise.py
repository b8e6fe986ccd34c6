"""Where release noise comes from: a named stream of a seed, or the operating system.

Both draw in float64 and round once. float32 generators build on 24-bit uniforms, so their Gaussians
end at 5.8 standard deviations; over a few thousand values a record that alone is worth a delta of 1e-5.
"""

from __future__ import annotations

import math
import os
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from privhier.seeding import torch_stream


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


class SystemNoise:
    """Noise from the operating system's entropy. It holds no state: nothing to store, copy or log."""

    kind = "system"
    __slots__ = ()

    def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal values, float32 on the CPU (Box and Muller, 1958, on 53-bit uniforms)."""
        count = math.prod(shape)
        words = _entropy(count + count % 2)
        first, second = _uniform(words[0::2]), _uniform(words[1::2])
        radius = np.sqrt(-2 * np.log1p(-first))
        angle = 2 * math.pi * second
        values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)

    def laplace(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Laplace values of scale 1, float32 on the CPU (inverse distribution function)."""
        words = _entropy(math.prod(shape))
        size = -np.log1p(-_uniform(words))
        # The uniform is made of the upper 53 bits, so the lowest is free for the sign.
        values = np.where(words & np.uint64(1), -size, size)
        return torch.from_numpy(values.astype(np.float32)).reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Uniform values in [0, 1), float64 on the CPU, 53 bits of entropy each."""
        return torch.from_numpy(_uniform(_entropy(math.prod(shape)))).reshape(shape)


def _entropy(count: int) -> npt.NDArray[np.uint64]:
    return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)


def _uniform(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Multiples of 2**-53 in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
