"""Channels last: the same network on activations that lie pixel by pixel, where that is faster.

Convolutions read such activations as they are, and other ones only after a copy into blocks of channels. What
torch lacks on a CPU is a GroupNorm that is fast on them; here is one. Nothing but last digits changes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FASTEST: frozenset[tuple[str, str]] = frozenset({("cpu", "small_cnn")})
"""Type of device and backbone for which training is faster so, by pairs of steps with it and without."""


def pays(asked: bool | Literal["auto"], backbone: str, device: torch.device) -> bool:
    """Whether to train so: as asked, or where it was measured to be faster; no claim where nothing was."""
    return (device.type, backbone) in FASTEST if asked == "auto" else asked


def use_channels_last(layers: nn.Module) -> None:
    """Make these layers compute on channels-last activations, from where a batch enters to where it leaves.

    What goes in and what comes out lies as before. Parameters, their names and their gradients stay as they
    are. In training mode only: what is evaluated and released is, bit for bit, what the same weights give
    once they are read back from a file. Gradients of gradients are refused.

    Args:
        layers: A part of a network that takes maps ``(B, C, h, w)``; changed in place.
    """
    _replace(layers)
    layers.register_forward_pre_hook(_entering)
    layers.register_forward_hook(_leaving)


class ChannelsLastGroupNorm(nn.GroupNorm):
    """GroupNorm, fast on channels-last float32 maps and torch's own on anything else."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same, laid out alike."""
        last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        if not last or x.dtype != torch.float32 or not self.affine:
            return super().forward(x)
        result: Tensor = _Normalize.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return result


class _Normalize(torch.autograd.Function):
    """Rows of W * C values are added and scaled as wholes: long enough for a processor's vectors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        ctx.groups, ctx.width, ctx.count = groups, width, height * width * channels // groups
        rows = _rows(x)
        mean = _grouped(_sums(rows, width), groups).sum(2, keepdim=True) / ctx.count
        centered = rows - _spread(mean.expand(batch, groups, channels // groups), width)
        square = _grouped(_sums(centered * centered, width), groups).sum(2, keepdim=True)
        scale = (square / ctx.count + eps).rsqrt_()
        factor = scale * weight.view(1, groups, -1)
        shift = bias.view(1, groups, -1)
        ctx.save_for_backward(centered, weight, scale)
        return _map(torch.addcmul(_spread(shift, width), centered, _spread(factor, width)), x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centered, weight, scale = ctx.saved_tensors
        groups, width = ctx.groups, ctx.width
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        rows, weights = _rows(grad), weight.view(1, groups, -1)
        plain = _grouped(_sums(rows, width), groups)
        along = _grouped(_sums(rows * centered, width), groups) * scale  # with the normalized values
        level = (plain * weights).sum(2, keepdim=True) / ctx.count
        slope = (along * weights).sum(2, keepdim=True) / ctx.count
        shape = (len(rows), groups, weights.shape[2])
        result = torch.addcmul(
            _spread((-scale * level).expand(shape), width),
            centered,
            _spread((-scale.square() * slope).expand(shape), width),
        ).addcmul_(rows, _spread(scale * weights, width))
        ours = along.flatten(1).sum(0), plain.flatten(1).sum(0)
        return _map(result, grad.shape), *ours, None, None


def _rows(x: Tensor) -> Tensor:
    """Channels-last ``(B, C, h, w)`` as it lies in memory: ``(B, h, w * C)``."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)


def _map(rows: Tensor, shape: torch.Size) -> Tensor:
    """Inverse of ``_rows``."""
    batch, channels, height, width = shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _sums(rows: Tensor, width: int) -> Tensor:
    """Over all pixels: ``(B, h, w * C)`` to ``(B, C)``."""
    return rows.sum(1).view(len(rows), width, -1).sum(1)


def _grouped(values: Tensor, groups: int) -> Tensor:
    """``(B, C)`` to ``(B, G, C / G)``."""
    return values.view(len(values), groups, -1)


def _spread(values: Tensor, width: int) -> Tensor:
    """One value a channel, ``(B, G, C / G)``, to rows of pixels ``(B, 1, w * C)``."""
    each = values.flatten(1).unsqueeze(1)
    return each.expand(-1, width, -1).reshape(len(each), 1, -1)


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if type(child) is nn.GroupNorm:
            fast = ChannelsLastGroupNorm(child.num_groups, child.num_channels, child.eps, child.affine)
            fast.weight, fast.bias = child.weight, child.bias
            setattr(module, name, fast.train(child.training))
        else:
            _replace(child)


def _entering(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    first = inputs[0]
    if not module.training or first.ndim != 4:
        return inputs
    return first.contiguous(memory_format=torch.channels_last), *inputs[1:]


def _leaving(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous()
