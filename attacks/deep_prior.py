"""White-box reconstruction by a deep image prior: an untrained network per victim, fitted to its releases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.matching import (
    Misfit,
    affordable_steps,
    descend,
    image_errors,
    inverted_in_batches,
    mean_image,
    own_cases,
    stops_at,
)
from privhier.attacks.view import View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, numpy_stream

_STOPS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of the steps at which the attacker looks at its own images; after none, the guess is their mean."""
_AVERAGE = 0.9
"""Memory of the running mean over the networks' outputs (Ulyanov et al., 2018, section 3)."""
_CODE_SCALE = 0.1
"""Largest value of the fixed input, as in the paper."""


class Generators(nn.Module):
    """One small generator an image, b at a time as b groups of each convolution; all begin alike.

    A fixed random map is enlarged level by level to the image: bilinear upsampling, 3x3 convolution,
    normalization of every channel, leaky ReLU; a last convolution and a sigmoid give (b, 3, H, W).
    What one image's weights become does not depend on the others.
    """

    code: Tensor

    def __init__(self, images: int, image_shape: tuple[int, int, int], width: int, levels: int) -> None:
        super().__init__()
        self.images, self.width = images, width
        channels, height, breadth = image_shape
        self.sizes = [
            (math.ceil(height / 2**level), math.ceil(breadth / 2**level)) for level in range(levels, -1, -1)
        ]
        self.register_buffer("code", _CODE_SCALE * torch.rand(1, width, *self.sizes[0]))
        layers = [nn.Conv2d(width, width, 3, padding=1) for _ in self.sizes]
        layers.append(nn.Conv2d(width, channels, 3, padding=1))
        self.weights = nn.ParameterList([layer.weight.detach().repeat(images, 1, 1, 1) for layer in layers])
        shifts = [layer.bias.detach().repeat(images) for layer in layers if layer.bias is not None]
        self.shifts = nn.ParameterList(shifts)
        self.scales = nn.ParameterList([torch.ones(images * width) for _ in self.sizes])

    def forward(self) -> Tensor:
        """Images (b, 3, H, W) in (0, 1)."""
        x = self.code.repeat(1, self.images, 1, 1)
        for level, size in enumerate(self.sizes):
            if level:
                x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = self._convolve(x, level, bias=False)
            channels = self.images * self.width
            # Without a bias of its own: normalization would take it away again.
            x = nn.functional.group_norm(x, channels, self.scales[level], self.shifts[level])
            x = nn.functional.leaky_relu(x, 0.2)
        x = self._convolve(x, len(self.sizes), bias=True)
        return torch.sigmoid(x.view(self.images, -1, *self.sizes[-1]))

    def _convolve(self, x: Tensor, layer: int, *, bias: bool) -> Tensor:
        shift = self.shifts[layer] if bias else None
        return nn.functional.conv2d(x, self.weights[layer], shift, padding=1, groups=self.images)

    def gmacs(self) -> float:
        """Forward cost of one image, in 10^9 multiply-accumulates."""
        sizes = [*self.sizes, self.sizes[-1]]
        counted = zip(self.weights, sizes, strict=True)
        return float(
            sum(w.numel() * height * breadth for w, (height, breadth) in counted) / self.images / 1e9
        )


@attacks.register("deep_prior")
@dataclass(frozen=True)
class DeepPriorAttack(Attack):
    """Deep image prior (Ulyanov, Vedaldi and Lempitsky, 2018) in place of pixels: early stopping regularizes.

    The weights of an untrained convolutional network per victim are fitted so that the edge turns its
    output into the victim's T releases. Such a network takes up natural structure before noise, so
    the number of steps is the strength of the prior: the one that did best on the attacker's own
    validation images, which it releases itself.

    Attributes:
        target: Unused; reconstruction has no target attribute.
        steps: Most steps of Adam.
        learning_rate: Its rate.
        width: Channels of every generator.
        levels: Doublings from the fixed input to the image.
        batch: Images optimized at a time.
        max_gmacs: Bound on the forward cost of one image, generator and edge, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "reconstruction"
    white_box: ClassVar[bool] = True
    expensive: ClassVar[bool] = True
    steps: int = option(400, low=1)
    learning_rate: float = option(0.01, low=1e-7)
    width: int = option(32, low=2)
    levels: int = option(3, low=0, high=6)
    batch: int = option(16, low=1)
    max_gmacs: int = option(200, low=1)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        own = own_cases(view, "deep_prior")
        misfit = Misfit(view, own.train)
        gmacs = self._generators(view, 1).gmacs() + misfit.gmacs()
        steps = affordable_steps(gmacs, self.steps, self.max_gmacs)
        stops = stops_at(_STOPS, steps)
        mean = mean_image(view, own.train)
        iterates = self._descend(view, misfit, own.releases, mean, stops)
        errors = [float(image_errors(x, own.images).mean()) for x in iterates]
        stop = stops[int(np.argmin(errors))]

        def inverted(part: Tensor) -> tuple[Tensor, Tensor]:
            (x,) = self._descend(view, misfit, part, mean, [stop])
            with torch.no_grad():
                return x, misfit(x, part)

        images, losses = inverted_in_batches(view, self.batch, inverted)
        return AttackResult(
            reconstructions=images,
            own_loss=losses,
            validation=-min(errors),
            selected={"steps": stop, "of": steps},
            queries=own.queries,
        )

    def _generators(self, view: View, images: int) -> Generators:
        with isolated_rng(view.seed, "attack", "deep_prior"):
            return Generators(images, view.image_shape, self.width, self.levels).to(view.device)

    def _descend(
        self, view: View, misfit: Misfit, releases: Tensor, mean: Tensor, stops: Sequence[int]
    ) -> list[Tensor]:
        """Running means of the outputs (b, 3, H, W) after each of ``stops`` steps; after none, ``mean``."""
        rng = numpy_stream(view.seed, "attack", "deep_prior", "states")
        generators = self._generators(view, len(releases))
        optimizer = torch.optim.Adam(generators.parameters(), self.learning_rate)
        average = mean.expand(len(releases), *mean.shape)
        kept = [average] if stops[0] == 0 else []
        for step in range(1, stops[-1] + 1):
            x = generators()
            descend(optimizer, misfit(x, releases, misfit.states(rng)).sum())
            with torch.no_grad():
                # An early step counts more, so that the first outputs are soon forgotten.
                average = average.lerp(x, max(1 - _AVERAGE, 1 / step))
            if step in stops:
                kept.append(average.clone())
        return kept
