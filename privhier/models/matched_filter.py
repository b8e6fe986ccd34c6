"""The matched filter first in the tail: what a map lost to shaped noise is read back by a linear layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from privhier.models.staged import FeatureShape

MOST = 1024**2
"""Weights of a filter, at most: 4 MiB. A whole map of up to 1,024 values fits."""


class MatchedFilter(nn.Module):
    r"""A linear layer with bias on a map: ``(B, C, h, w)`` to the same, the identity at first.

    Where an edge shapes noise by gains of its own (the defense ``gain``), values arrive at sizes that
    differ by channel and position, and a convolution, which treats all positions alike, cannot undo that. For
    features of covariance :math:`\Sigma` sent under noise of variance :math:`\sigma^2` the best linear reader
    is :math:`\Sigma (\Sigma + \sigma^2 I)^{-1}`, and no convolution either. The tail learns it from what goes
    up.

    One full layer over the flattened map would grow with its square. ``MOST`` weights at most are spent, on
    the first of these that fits:

    - the whole map: one full layer over all :math:`C h w` values, up to 1,024 of them;
    - place by place: at each of the :math:`h w` positions a layer of its own over its C channels;
    - value by value: one weight for each value, :math:`C h w` in all (the one form that ``MOST`` does not
      bound; it is as large as one record's map).

    It draws nothing at random: a tail with it starts out as the same function as the tail without.

    Args:
        shape: ``(C, h, w)``.
    """

    def __init__(self, shape: FeatureShape) -> None:
        super().__init__()
        channels, values = shape[0], math.prod(shape)
        fitting = (width for width in (values, channels) if values * width <= MOST)
        self.width = next(fitting, 1)
        blocks = values // self.width
        self.weight = nn.Parameter(torch.eye(self.width).repeat(blocks, 1, 1))
        self.bias = nn.Parameter(torch.zeros(blocks, self.width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to the same shape."""
        count, channels, height, width = x.shape
        # Places before channels, so that the channels of a place are one block.
        blocks = x.permute(0, 2, 3, 1).reshape(count, -1, self.width)
        if self.width == 1:
            filtered = blocks * self.weight[:, 0] + self.bias
        else:
            filtered = torch.einsum("bgi,gij->bgj", blocks, self.weight) + self.bias
        return filtered.reshape(count, height, width, channels).permute(0, 3, 1, 2).contiguous()

    def extra_repr(self) -> str:
        """How many layers there are, and how wide."""
        return f"blocks={len(self.weight)}, width={self.width}"
