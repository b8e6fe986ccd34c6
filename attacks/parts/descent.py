"""The inner loop of inversion: images moved down a gradient, each left alone once it is still.

Adam works on sums of maps. Everything but the edge itself is a handful of operations a step: no graph is
built for the sum of maps (it is linear, so its gradient is known), the prior's slope is written down, Adam is
fused, and nothing waits for the device but a look at who is still, every ``LOOK`` steps.

Shapes: b images, (b, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from privhier.attacks.parts.matching import Misfit, total_variation, total_variation_slope
from privhier.attacks.parts.quasi_newton import QuasiNewton

Optimizer = Literal["adam", "lbfgs"]
"""Who moves the images: ``Pyramid`` or ``QuasiNewton``."""

BETAS = (0.8, 0.9)
"""Adam's; its usual memory of a thousand squared gradients keeps early, large ones and stalls here."""
LEVELS = 4
"""Of the pyramid: pixels, and maps of a half, a quarter and an eighth of the image's side."""
LOOK = 10
"""Steps from one look at who is still to the next."""
STILL = 0.25 / 255
"""An image of which no value moved further than this (a quarter gray level) between two looks is done."""


class Pyramid:
    """Images as a start plus maps of full, half, quarter ... size, bilinearly enlarged; moved by Adam.

    Args:
        start: ``(3, H, W)``, or one for each image, ``(b, 3, H, W)``.
        images: b.
    """

    def __init__(self, start: Tensor, images: int) -> None:
        channels, height, width = start.shape[-3:]
        sizes = [(height // 2**level, width // 2**level) for level in range(LEVELS)]
        kept = [size for size in sizes if min(size) >= 1]
        self.maps = [torch.zeros(images, channels, *size, device=start.device) for size in kept]
        self._start = start.expand(images, *start.shape[-3:])
        self._enlarge = [(_linear(h, height, start), _linear(w, width, start)) for h, w in kept[1:]]
        self._adam = torch.optim.Adam(self.maps, betas=BETAS, fused=True)
        self.image = start.expand(images, *start.shape[-3:]).clone()
        """The sum as it stands, ``(b, 3, H, W)``."""

    @torch.no_grad()
    def step(self, slope: Tensor, rate: float) -> None:
        """One step of Adam down ``slope (b, 3, H, W)``, then back into [0, 1] through the finest map."""
        self.maps[0].grad = slope
        for values, (rows, columns) in zip(self.maps[1:], self._enlarge, strict=True):
            values.grad = rows.T @ slope @ columns
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        x = self._start + self.maps[0]
        for values, (rows, columns) in zip(self.maps[1:], self._enlarge, strict=True):
            x += rows @ values @ columns.T
        self.image = x.clamp(0, 1)
        self.maps[0] += self.image - x

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Go on with these images alone."""
        state = [self._adam.state[values] for values in self.maps]
        self.maps = [values[rows].contiguous() for values in self.maps]
        self.image = self.image[rows].contiguous()
        self._start = self._start[rows]
        self._adam = torch.optim.Adam(self.maps, betas=BETAS, fused=True)
        for values, before in zip(self.maps, state, strict=True):
            self._adam.state[values] = {
                name: value if name == "step" else value[rows].contiguous() for name, value in before.items()
            }


def _linear(small: int, large: int, like: Tensor) -> Tensor:
    """``(large, small)``: what bilinear enlargement does along one axis."""
    unit = torch.eye(small, dtype=like.dtype, device=like.device)
    return nn.functional.interpolate(unit[None], size=large, mode="linear", align_corners=False)[0].T


def descent(
    misfit: Misfit,
    releases: Tensor,
    start: Tensor,
    weights: Tensor,
    *,
    rate: float,
    steps: int,
    stops: Sequence[int],
    states: Callable[[], list[int]],
    optimizer: Optimizer = "adam",
) -> list[Tensor]:
    """Images that explain releases, as they are after some of the steps.

    Args:
        misfit: What is descended on, with total variation.
        releases: ``(b, T, *shape)``.
        start: Where all begin, ``(3, H, W)``, or each, ``(b, 3, H, W)``.
        weights: Of total variation, ``(b,)``.
        rate: Adam's first rate, falling on a half cosine over ``steps``.
        steps: Length of that schedule, and of the prior's.
        stops: Steps after which the images are kept, rising; the last one ends it.
        states: The edge states to match in a step, called before each; L-BFGS wants the same every time.
        optimizer: Who moves them.

    Returns:
        ``(b, 3, H, W)`` for each of ``stops``. An image that is still (``STILL``) stays as it is.
    """
    whole = Pyramid(start, len(releases)) if optimizer == "adam" else QuasiNewton(start, len(releases))
    images = whole.image.clone()
    moving = torch.arange(len(releases), device=releases.device)
    kept = [images.clone()] if stops[0] == 0 else []
    before = whole.image
    for step in range(stops[-1]):
        if len(moving):
            share = misfit.tempering(step / steps)
            if isinstance(whole, Pyramid):
                slope = misfit.slope(whole.image, releases, states())
                slope += share * total_variation_slope(whole.image, weights)
                whole.step(slope, rate * 0.5 * (1 + math.cos(math.pi * step / steps)))
            else:
                whole.step(*_looked_at(misfit, whole.trial, releases, weights, states()), share)
        if step + 1 in stops:
            images[moving] = whole.image
            kept.append(images.clone())
        # Not while the prior's weight still sinks: then what is still now will move again.
        elif (step + 1) % LOOK == 0 and len(moving) and misfit.tempering((step - LOOK) / steps) == 1:
            moves = (whole.image - before).abs().amax(dim=(1, 2, 3)) > STILL
            if not bool(moves.all()):
                images[moving] = whole.image
                going = moves.nonzero().squeeze(1)
                moving, releases, weights = moving[going], releases[going], weights[going]
                whole.keep(going)
            before = whole.image
        elif (step + 1) % LOOK == 0:
            before = whole.image
    return kept


def _looked_at(
    misfit: Misfit, x: Tensor, releases: Tensor, weights: Tensor, states: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Misfit and prior of images, ``(2, b)``, and their slopes, ``(2, b, 3, H, W)``."""
    value, slope = misfit.value_and_slope(x, releases, states)
    prior = weights * total_variation(x)
    return torch.stack([value, prior]), torch.stack([slope, total_variation_slope(x, weights)])
