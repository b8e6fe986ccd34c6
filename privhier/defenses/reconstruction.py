"""Against reconstruction (DeepObfuscator, bounded): what a decoder draws from releases is the mean image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from privhier.defenses.adversaries import held_constant
from privhier.defenses.base import (
    AdversarialOptions,
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)
from privhier.models.edge import EdgeSegment

_COARSE = 8
"""A vector is laid out as a map of an eighth of the image's side."""
_NARROWEST = 8


class ReconstructionOptions(AdversarialOptions):
    """Options of the defense; ``adversary_steps`` are steps of exits and decoder."""

    hidden: int = Field(32, ge=1)
    """Channels of the decoder's coarsest map; half as many after every upsampling, at least eight."""


class Decoder(nn.Sequential):
    """Releases ``(B, *shape)`` to images ``(B, 3, S, S)``, normalized.

    Vectors: linear to a map of an eighth of S, ReLU. Maps: 3x3 convolution, ReLU. Then nearest-neighbor
    upsampling by two, 3x3 convolution, ReLU, until S; last a 3x3 convolution to the three colors.

    Args:
        shape: ``(d,)`` or ``(C, h, w)``.
        size: S.
        hidden: Channels at first.
    """

    def __init__(self, shape: Sequence[int], size: int, hidden: int) -> None:
        layers: list[nn.Module]
        if len(shape) == 1:
            side = height = -(-size // _COARSE)
            layers = [nn.Linear(shape[0], hidden * side**2), nn.ReLU(), nn.Unflatten(1, (hidden, side, side))]
        else:
            height, side = shape[1:]
            layers = [nn.Conv2d(shape[0], hidden, 3, padding=1), nn.ReLU()]
        while (height, side) != (size, size):
            height, side = min(2 * height, size), min(2 * side, size)
            narrow = max(_NARROWEST, hidden // 2)
            layers += [nn.Upsample(size=(height, side)), nn.Conv2d(hidden, narrow, 3, padding=1), nn.ReLU()]
            hidden = narrow
        super().__init__(*layers, nn.Conv2d(hidden, 3, 3, padding=1))


@defenses.register("reconstruction")
class Reconstruction(Defense):
    r"""The edge makes its own decoder draw the mean image, whoever was shown.

    In one backward, over the mean of pixels,

    .. math:: \mathrm{CE} + \lVert R(\mathrm{sg}\,z) - x \rVert^2
        + \lambda \lVert R''(z) - \bar x \rVert^2,

    R a decoder of the defense's own that learns to draw the image x (as the edge saw it: augmented and
    normalized) from detached releases, :math:`R''` the same held constant, through which the edge pulls the
    drawing to the mean training image, :math:`\lambda` = ``weight``. The idea of DeepObfuscator (Li and
    others, 2021), which drives drawing and image apart without bound: an edge wins that by releases that its
    own decoder draws in false colors and a fresh one reads as before. The mean image is what can be drawn of
    nobody, and there the pull ends.

    R sees detached z, so the edge is never trained to help it. Of images and not of labels: every record has
    its terms. The adversarial exits learn on, and nothing is done against them.

    Args:
        options: See ``ReconstructionOptions``.
    """

    Options: ClassVar[type[DefenseOptions]] = ReconstructionOptions
    options: ReconstructionOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})

    decoder: Decoder
    mean_image: Tensor

    @property
    def reads_data(self) -> bool:
        """The mean image of the training records."""
        return True

    @property
    def has_parameters(self) -> bool:
        """The decoder, from ``attach`` on."""
        return True

    def attach(self, edge: EdgeSegment) -> None:
        """Make the decoder, of the edge's shapes and on its device."""
        size = int(edge.describe()["image_size"])
        device = next(edge.parameters()).device
        self.decoder = Decoder(edge.feature_shape, size, self.options.hidden).to(device)
        self.register_buffer("mean_image", torch.zeros(3, size, size, device=device))

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Keep the mean image."""
        self.mean_image.copy_(data.mean_image())

    def adversaries(self) -> Iterator[nn.Parameter]:
        """The decoder's."""
        return self.decoder.parameters()

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task, exits' and decoder's own losses, and the pull to the mean image: ``(B,)``."""
        drawn = held_constant(self.decoder, self.decoder, batch.z)
        weight = self.options.weight * batch.strength
        learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        return learning + weight * squared_distance(drawn, self.mean_image)

    def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
        """Exits' cross-entropy and the decoder's squared error on detached ``z``: ``(B,)``."""
        assert batch.images is not None
        drawn = self.decoder(z.detach())
        return super().adversary_loss(z, batch) + squared_distance(drawn, batch.images)


def squared_distance(drawn: Tensor, images: Tensor) -> Tensor:
    """Mean over pixels of the squared difference, ``(B, 3, S, S)`` to ``(B,)``."""
    return (drawn - images).square().flatten(1).mean(dim=1)
