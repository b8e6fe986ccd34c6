"""Trials of a release audit: features are made, released by the code under audit, and scored.

Rows of one large batch are trials of their own wherever that is sound; every call has its own batch number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

FloatArray = npt.NDArray[np.float64]
Kind = Literal["gaussian", "laplace", "letters"]
"""What is released: values with noise of a kind, or letters behind a channel; all but gaussian are pure."""
Scores = tuple[FloatArray, FloatArray]
"""float64 ``(n,)`` each: the adversary's score under the one input and under the other."""
Draw = Callable[[int], Scores]
"""A number of trials to their scores."""
FAR = 1000.0
"""How far outside the ball inputs lie, in clip norms."""
INSIDE = 1 - 2.0**-18
"""A norm, in clip norms, that clipping leaves alone."""
BATCH = 8
"""Records of a batch in which only the first is the target."""


class ReleaseFunction(Protocol):
    """The code under audit: features in, what the cloud sees out."""

    def __call__(self, features: Tensor, *, epoch: int, batch: int) -> Tensor:
        """Release features ``(B, *shape)`` as batch ``batch`` of epoch ``epoch``, ``(B, *shape)``."""
        ...


class Trials:
    """Makes draws of one release function; memory stays within a few batches.

    Args:
        release: The code under audit.
        kind: The mechanism that is claimed.
        clip: C, in feature units.
        shape: Shape of one record's features.
        first_batch: Number of the first batch; every call takes the next one.
        draws: How many trials are planned; few draws take smaller batches.
    """

    def __init__(
        self,
        release: ReleaseFunction,
        *,
        kind: Kind,
        clip: float,
        shape: Sequence[int],
        first_batch: int,
        draws: int,
    ) -> None:
        self.release, self.kind, self.clip, self.shape = release, kind, clip, tuple(shape)
        self.values = math.prod(self.shape)
        most = min(4096, 2**21 // self.values, max(512, draws // 16))
        self.rows = max(8, most // 512 * 512 if most >= 512 else most // 4 * 4)
        self._batches = itertools.count(first_batch)

    def mirror(self, u: Tensor, size: float, half: float, count: int) -> Draw:
        """Inputs +-size u, their ``count`` releases summed up; ``half`` as for ``_score``."""

        def chunk() -> Scores:
            signs, score = self._signs(self.rows), np.zeros(self.rows)
            features = signs[:, None] * (size * u)
            for epoch in range(count):
                score += self._score(self._released(features, epoch), u, half)
            return score[1::2], score[0::2]

        return collected(chunk)

    def two_epochs(self, u: Tensor, size: float, epochs: tuple[int, int]) -> Draw:
        """Inputs +-size u in one epoch and -+size u in the other, the releases subtracted."""

        def chunk() -> Scores:
            features = self._signs(self.rows)[:, None] * (size * u)
            batch = next(self._batches)
            first = self._released(features, epochs[0], batch)
            score = self._score(first - self._released(-features, epochs[1], batch), u)
            return score[1::2], score[0::2]

        return collected(chunk)

    def known_noise(self, u: Tensor, size: float, apart: int | None) -> Draw:
        """Targets at +-size u less the releases of known records at zero, which are their noise.

        ``apart``: the known record comes that many records later in the batch, a divisor of half of
        ``rows``; None: at the same place in the next batch.
        """

        def chunk() -> Scores:
            half = self.rows // 2
            targets = self._signs(half)[:, None] * (size * u)
            known = torch.zeros_like(targets)
            if apart is None:
                noise = self._released(targets, 0) - self._released(known, 0)
            else:
                blocks = torch.stack([part.reshape(-1, apart, self.values) for part in (targets, known)], 1)
                both = self._released(blocks.reshape(self.rows, self.values), 0).reshape_as(blocks)
                noise = (both[:, 0] - both[:, 1]).reshape(half, self.values)
            score = self._score(noise, u)
            return score[1::2], score[0::2]

        return collected(chunk)

    def clipped_image(self, u: Tensor) -> Draw:
        """A record far outside the ball, and one at its clipped image."""

        def chunk() -> Scores:
            sizes = torch.tensor([FAR, INSIDE], dtype=torch.float64).repeat(self.rows // 2) * self.clip
            score = self._score(self._released(sizes.float()[:, None] * u, 0), u)
            return score[1::2], score[0::2]

        return collected(chunk)

    def small_batches(self, u: Tensor, *, alone: bool, repeat: int) -> Draw:
        """Batches of eight, ``repeat`` of them summed up in a trial.

        ``alone``: the target among zeros, at its clipped image and far; its own releases are scored.
        Else: the others at C u, the target at zero and far; the others' releases are scored.
        """

        def chunk() -> Scores:
            totals = []
            for size in (INSIDE, FAR) if alone else (0.0, FAR):
                features = torch.zeros(BATCH, self.values)
                if not alone:
                    features[:] = INSIDE * self.clip * u
                features[0] = size * self.clip * u
                total = 0.0
                for _ in range(repeat):
                    scores = self._score(self._released(features, 0), u)
                    total += float(scores[0] if alone else scores[1:].sum())
                totals.append(np.array([total]))
            return totals[0], totals[1]

        return collected(chunk)

    def pair(
        self,
        low: Tensor,
        high: Tensor,
        *,
        u: Tensor,
        half: float,
        energy: bool = False,
        own: tuple[int, int] | None = None,
    ) -> Draw:
        """Two inputs ``(values,)``, row by row in turn, in batches of a size of the run's own or large ones.

        Args:
            low: The one input.
            high: The other.
            u: Direction of their difference; releases are scored along it from the middle between them.
            half: As for ``_score``.
            energy: Score the size of the release instead: noise that depends on the record shows there.
            own: Epoch, and records of a batch; None: epoch 0, as many as the other views take.
        """
        epoch, size = own or (0, self.rows)
        middle = (low + high) / 2

        def chunk() -> Scores:
            scores: tuple[list[FloatArray], list[FloatArray]] = ([], [])
            for first in (0, 1)[: 1 + size % 2]:  # an odd batch has one place more for the one input
                which = (torch.arange(size) + first) % 2
                released = self._released(torch.where(which[:, None] == 0, low, high), epoch)
                score = self._energy(released) if energy else self._score(released - middle, u, half)
                for side in (0, 1):
                    scores[side].append(score[(which == side).numpy()])
            return np.concatenate(scores[0]), np.concatenate(scores[1])

        return collected(chunk)

    def _energy(self, released: Tensor) -> FloatArray:
        size = released.double()
        size = size.square() if self.kind == "gaussian" else size.abs()
        return np.asarray(size.sum(1).numpy(), dtype=np.float64)

    def _released(self, features: Tensor, epoch: int, batch: int | None = None) -> Tensor:
        """float32 ``(B, values)`` on the CPU; nan becomes 0 and infinities huge."""
        number = next(self._batches) if batch is None else batch
        shaped = features.reshape(len(features), *self.shape)
        released = self.release(shaped, epoch=epoch, batch=number).detach().cpu().float().flatten(1)
        return torch.nan_to_num(released, nan=0.0, posinf=1e30, neginf=-1e30)

    def _score(self, released: Tensor, u: Tensor, half: float = math.inf) -> FloatArray:
        """Log likelihood ratio of the centers +-half u up to a factor; laplace with half inf: a sum."""
        if self.kind == "gaussian":
            score = released.double() @ u.double()
        elif math.isinf(half):
            score = released.double() @ torch.sign(u).double()
        else:
            bound = half * u.abs()
            score = (released * torch.sign(u)).clamp(-bound, bound).double().sum(1)
        return np.asarray(score.numpy(), dtype=np.float64)

    def _signs(self, rows: int) -> Tensor:
        return torch.tensor([1.0, -1.0]).repeat(rows // 2)


def collected(chunk: Callable[[], Scores]) -> Draw:
    """As many trials as asked for, from chunks of any size."""

    def draw(trials: int) -> Scores:
        lows, highs, have = [], [], 0
        while have < trials:
            low, high = chunk()
            lows.append(low)
            highs.append(high)
            have += len(low)
        return np.concatenate(lows)[:trials], np.concatenate(highs)[:trials]

    return draw
