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

    It is a gain for every value, a layer that mixes values, in units of their number, and a bias:
    :math:`y = x' + V x' / k + b` with :math:`x' = g x`. A full layer over the flattened map would grow with
    its square, so V holds ``MOST`` weights at most, and mixes the first of these k values that fit:

    - the whole map, up to 1,024 values: one full layer;
    - place by place: at each of the :math:`h w` positions a layer of its own over its C channels;
    - nothing: gains and biases alone, which are as many as two maps hold values.

    Gains are learned as fast as anything in the tail; of V a step of Adam moves an answer by k weights at
    once, which is why it is counted in k (Yang and others, 2022, "Tensor programs V"). It draws nothing at
    random: a tail with it starts out as the same function as the tail without.

    Args:
        shape: ``(C, h, w)``.

    Attributes:
        width: k.
    """

    def __init__(self, shape: FeatureShape) -> None:
        super().__init__()
        channels, values = shape[0], math.prod(shape)
        self.width = next((width for width in (values, channels) if values * width <= MOST), 1)
        blocks = values // self.width
        self.gain = nn.Parameter(torch.ones(blocks, self.width))
        self.bias = nn.Parameter(torch.zeros(blocks, self.width))
        if self.width > 1:
            self.mixing = nn.Parameter(torch.zeros(blocks, self.width, self.width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to the same shape."""
        count, channels, height, width = x.shape
        # Places before channels, so that the channels of a place are one block.
        scaled = x.permute(0, 2, 3, 1).reshape(count, -1, self.width) * self.gain
        filtered = scaled + self.bias
        if self.width > 1:
            filtered = filtered + torch.einsum("bgi,gij->bgj", scaled, self.mixing) / self.width
        return filtered.reshape(count, height, width, channels).permute(0, 3, 1, 2).contiguous()

    def extra_repr(self) -> str:
        """How many layers there are, and how wide."""
        return f"blocks={len(self.gain)}, width={self.width}"
