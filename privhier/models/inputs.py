"""Images into the network: normalization by public constants, and augmentation of whole batches."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Uniforms(Protocol):
    """What draws uniform values: a noise source."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Uniform values in [0, 1), float64 on the CPU."""
        ...


def normalize(images: Tensor) -> Tensor:
    """uint8 images ``(B, 3, H, W)`` in 0..255 to float32 in [-1, 1]: ``(x / 255 - 0.5) / 0.5``.

    The constants are public: nothing is read off private data.

    Example:
        >>> normalize(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def augment(images: Tensor, flip: bool, shift: int, source: torch.Generator | Uniforms) -> Tensor:
    """Mirror and translate each image of a batch on its own; border pixels are repeated.

    Costs under 1 % of a training step of the smallest backbone when done on uint8, before ``normalize``.
    A call takes the same number of draws whatever ``flip`` and ``shift`` are.

    Args:
        images: ``(B, C, H, W)``, any dtype; not changed.
        flip: Mirror left to right with probability one half.
        shift: Translate by a uniform whole number of pixels in [-shift, shift] on each axis.
        source: Of all randomness, one row an image; may live on another device than ``images``.

    Returns:
        A new tensor of the same shape and dtype (``images`` itself if there is nothing to do).
    """
    batch, channels, height, width = images.shape
    moves, mirrored = _draws(batch, shift, source)
    if not flip and shift == 0:
        return images
    moves, mirrored = moves.to(images.device), mirrored.to(images.device)
    rows = (torch.arange(height, device=images.device) + moves[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + moves[1]).clamp_(0, width - 1)
    if flip:
        columns = torch.where(mirrored, width - 1 - columns, columns)
    # Rows are copied whole and columns gathered: ten times faster than indexing all four axes at once.
    first = torch.arange(batch * channels, device=images.device)[:, None] * height
    index = (first + rows.repeat_interleave(channels, 0)).reshape(-1)
    moved = images.reshape(-1, width).index_select(0, index).view(images.shape)
    return moved.gather(3, columns[:, None, None, :].expand(images.shape))


def _draws(batch: int, shift: int, source: torch.Generator | Uniforms) -> tuple[Tensor, Tensor]:
    """Moves int64 ``(2, B, 1)`` down and to the right, and who is mirrored, bool ``(B, 1)``."""
    if isinstance(source, torch.Generator):
        where = source.device
        moves = torch.randint(-shift, shift + 1, (2, batch, 1), generator=source, device=where)
        return moves, torch.rand(batch, 1, generator=source, device=where) < 0.5
    drawn = source.uniform((batch, 3))
    moves = (drawn[:, :2] * (2 * shift + 1)).long() - shift
    return moves.t()[:, :, None], drawn[:, 2:] < 0.5
