"""L-BFGS for many images at once: a history, a step size and a line search for each, one forward for all.

Limited-memory BFGS (Nocedal, 1980; Liu and Nocedal, 1989) with backtracking, projected on the box [0, 1]: a
value at its bound that is pushed outwards is held there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MEMORY = 8
"""Moves whose curvature is remembered."""
_ENOUGH = 1e-4
"""Share of what the slope promises that a move must bring (Armijo)."""
_SHORTER = 0.3
"""What is left of a move that brought less."""
_FIRST = 0.05
"""Largest change of a value by a move while no curvature is known."""
_CURVED = 1e-10
"""Cosine of a move and the slope's change from which on the pair counts."""
_TINY = 1e-30


def history_bytes(image_shape: tuple[int, int, int]) -> int:
    """What is remembered of each image, float32."""
    return 2 * MEMORY * 4 * math.prod(image_shape)


class QuasiNewton:
    """Images in [0, 1], each on its own way down.

    Misfit and prior are kept apart, since the prior's weight sinks on the way.

    Args:
        start: ``(b, 3, H, W)`` or ``(3, H, W)``.
        images: b.
    """

    def __init__(self, start: Tensor, images: int) -> None:
        self.image = start.expand(images, *start.shape[-3:]).clone()
        """The best so far, ``(b, 3, H, W)``."""
        self.trial = self.image
        """Where misfit and prior are to be looked at next, same shape."""
        self._values = torch.full((2, images), torch.inf, device=start.device)
        self._slopes = torch.zeros(2, *self.image.shape, device=start.device)
        self._moves = torch.zeros(MEMORY, *self.image.shape, device=start.device)
        self._changes = torch.zeros_like(self._moves)
        self._inverse = torch.zeros(MEMORY, images, device=start.device)
        """One over move times change; 0 where a pair does not count."""
        self._scale = torch.zeros(images, device=start.device)
        """Of the inverse curvature; 0 while none is known."""
        self._length = torch.ones(images, device=start.device)
        self._steps = 0

    @torch.no_grad()
    def step(self, values: Tensor, slopes: Tensor, share: float) -> None:
        """Take or refuse ``trial``, image by image, and say where to look next.

        Args:
            values: Misfit and prior of ``trial``, ``(2, b)``.
            slopes: Their gradients, ``(2, b, 3, H, W)``.
            share: What the prior is multiplied by from now on.
        """
        slope = self._slopes[0] + share * self._slopes[1]
        move = self.trial - self.image
        promised = _ENOUGH * _dot(slope, move)
        taken = values[0] + share * values[1] <= self._values[0] + share * self._values[1] + promised
        if self._steps:
            self._remember(move, slopes[0] + share * slopes[1] - slope, taken)
        self._steps += 1
        each = _wide(taken)
        self.image = torch.where(each, self.trial, self.image)
        self._slopes = torch.where(each, slopes, self._slopes)
        self._values = torch.where(taken, values, self._values)
        self._length = torch.where(taken, torch.ones_like(self._length), _SHORTER * self._length)
        direction = self._direction(self._slopes[0] + share * self._slopes[1])
        self.trial = (self.image + _wide(self._length) * direction).clamp(0, 1)

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Go on with these images alone."""
        self.image, self.trial = self.image[rows], self.trial[rows]
        self._values, self._slopes = self._values[:, rows], self._slopes[:, rows]
        self._moves, self._changes = self._moves[:, rows], self._changes[:, rows]
        self._inverse, self._scale = self._inverse[:, rows], self._scale[rows]
        self._length = self._length[rows]

    def _remember(self, move: Tensor, change: Tensor, taken: Tensor) -> None:
        """Enter a pair in the place of the oldest; of an image that did not move it does not count."""
        along, energy = _dot(move, change), _dot(change, change)
        counts = taken & (along > _CURVED * (_dot(move, move) * energy).sqrt())
        place = (self._steps - 1) % MEMORY
        self._moves[place] = torch.where(_wide(counts), move, 0)
        self._changes[place] = torch.where(_wide(counts), change, 0)
        self._inverse[place] = torch.where(counts, 1 / along.clamp_min(_TINY), torch.zeros_like(along))
        self._scale = torch.where(counts, along / energy.clamp_min(_TINY), self._scale)

    def _direction(self, slope: Tensor) -> Tensor:
        """Downhill by the two loops over the history; by the slope alone where that leads uphill."""
        pushed_out = ((self.image <= 0) & (slope > 0)) | ((self.image >= 1) & (slope < 0))
        free = slope.masked_fill(pushed_out, 0)
        first = _FIRST / free.flatten(1).abs().amax(dim=1).clamp_min(_TINY)
        newest_first = [(self._steps - 2 - back) % MEMORY for back in range(min(MEMORY, self._steps - 1))]
        wanted, shares = free, []
        for place in newest_first:
            shares.append(self._inverse[place] * _dot(self._moves[place], wanted))
            wanted = wanted - _wide(shares[-1]) * self._changes[place]
        wanted = wanted * _wide(torch.where(self._scale > 0, self._scale, first))
        for place, share in zip(reversed(newest_first), reversed(shares), strict=True):
            back = self._inverse[place] * _dot(self._changes[place], wanted)
            wanted = wanted + _wide(share - back) * self._moves[place]
        wanted = wanted.masked_fill(pushed_out, 0)
        downhill = _dot(wanted, free) > 0  # false of what is not a number, too
        return -torch.where(_wide(downhill), wanted, _wide(first) * free)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """``(b,)``: each image's inner product."""
    return (x * y).flatten(1).sum(dim=1)


def _wide(each: Tensor) -> Tensor:
    return each.view(-1, 1, 1, 1)
