"""Letters while they are not there yet: prototypes that follow what they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

_DEAD = 0.02
"""Of an equal share: a prototype that stands for fewer records is put elsewhere."""
_TINY = 1e-12


def soft_letters(seen: Tensor, places: Tensor, temperature: float) -> Tensor:
    """Softmax of minus squared distances: ``(B, M, K)``, differentiable in ``seen``.

    Args:
        seen: ``(B, M, e)``.
        places: Where the letters are, ``(M, K, e)``, constants.
        temperature: In mean squared distances of a letter from the nearest other one.
    """
    apart = _squared(places, places)
    others = apart.masked_fill(torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device), torch.inf)
    gap = others.min(dim=2).values.mean(dim=1).clamp_min(_TINY)
    distance = _squared(seen.transpose(0, 1), places).transpose(0, 1)
    return torch.softmax(-distance / (temperature * gap[:, None]), dim=2)


@torch.no_grad()
def moved(centers: Tensor, filled: Tensor, seen: Tensor, *, decay: float) -> Tensor:
    """Move prototypes by a batch, in place: k-means with moving averages.

    As van den Oord and others (2017, appendix A.1). One whose share sinks below a fiftieth of an equal one is
    put on a record of the batch, drawn from torch's generator (Dhariwal and others, 2020, "random restarts").

    Args:
        centers: ``(M, K, e)``.
        filled: Moving share of the records that each stands for, ``(M, K)``.
        seen: ``(B, M, e)``.
        decay: What is left of the averages.

    Returns:
        Which were put elsewhere: bool ``(M, K)``.
    """
    letters = _squared(seen.transpose(0, 1), centers).argmin(dim=2)
    count = centers.shape[1]
    belongs = torch.nn.functional.one_hot(letters, count).to(seen.dtype)
    share = belongs.mean(dim=1)
    sums = torch.einsum("mbk,bme->mke", belongs, seen) / len(seen)
    filled.mul_(decay).add_(share, alpha=1 - decay)
    step = (1 - decay) * (sums - share[:, :, None] * centers) / filled.clamp_min(_TINY)[:, :, None]
    centers.add_(step)
    dead = filled < _DEAD / count
    drawn = torch.randint(len(seen), dead.shape).to(seen.device)
    groups = torch.arange(len(centers), device=seen.device)[:, None]
    centers.copy_(torch.where(dead[:, :, None], seen[drawn, groups], centers))
    filled.masked_fill_(dead, 1 / count)
    return dead


def shares_of(letters: Tensor, count: int) -> Tensor:
    """How many of the records each letter stands for: int64 ``(n, M)`` to shares ``(M, K)``."""
    return torch.nn.functional.one_hot(letters, count).float().mean(dim=0)


def _squared(left: Tensor, right: Tensor) -> Tensor:
    """Squared distances of ``(M, B, e)`` and ``(M, K, e)``: ``(M, B, K)``."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square()
