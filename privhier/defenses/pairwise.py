"""How alike two sets of distances, or of kernels, of the same records are."""

from __future__ import annotations

import torch
from torch import Tensor

_NOTHING = 1e-24
"""Of two variances multiplied: below it one side is the same for all records, and nothing is said of it."""
_FEWEST = {False: 2, True: 4}
"""Records that are needed: an unbiased estimate divides by n - 3."""


def double_centered(pairs: Tensor) -> Tensor:
    """Rows and columns of ``(n, n)``, symmetric, moved to sum 0 (Szekely, Rizzo and Bakirov, 2007)."""
    rows = pairs.mean(dim=1)
    return pairs - rows[:, None] - rows[None, :] + rows.mean()


def u_centered(pairs: Tensor) -> Tensor:
    """The same without the diagonal, whose sum over pairs is unbiased (Szekely and Rizzo, 2014).

    Args:
        pairs: ``(n, n)``, symmetric, n at least 3; whatever stands on its diagonal is not read.
    """
    n = len(pairs)
    others = ~torch.eye(n, dtype=torch.bool, device=pairs.device)
    pairs = torch.where(others, pairs, 0)
    rows = pairs.sum(dim=1) / (n - 2)
    whole = pairs.sum() / ((n - 1) * (n - 2))
    return torch.where(others, pairs - rows[:, None] - rows[None, :] + whole, 0)


def alignment_shares(a: Tensor, b: Tensor, *, unbiased: bool = False) -> Tensor:
    r"""Shares ``(n,)`` whose mean is :math:`\langle A, B \rangle / (\lVert A \rVert \lVert B \rVert)`.

    A and B are the centered pairs. Of distances that is the squared distance correlation, of kernels the
    normalized Hilbert-Schmidt independence criterion. At most 1; at least 0 unless unbiased. All 0 where
    one side is equal for all records, or where there are too few: below 2, unbiased below 4.

    Args:
        a: ``(n, n)``, symmetric, of one thing about the records.
        b: The same of another.
        unbiased: Whether the three inner products are estimated without bias. The plain ones are positive
            of independent things too, the more so the fewer records and the more values there are.
    """
    n = len(a)
    if n < _FEWEST[unbiased]:
        return a.new_zeros(n)
    a, b = (u_centered(a), u_centered(b)) if unbiased else (double_centered(a), double_centered(b))
    product = a.square().sum() * b.square().sum()
    something = product > _NOTHING * n**4
    # Chosen before the root, whose slope at 0 is infinite.
    scale = torch.where(something, product, 1).sqrt()
    return torch.where(something, n * (a * b).sum(dim=1) / scale, 0)


def classes_alike(labels: Tensor) -> Tensor:
    """1 where two records have one class, else 0: float64 ``(n, n)`` of int64 ``(n,)``, the delta kernel."""
    return (labels[:, None] == labels[None, :]).double()


def distances(values: Tensor) -> Tensor:
    """Euclid's distances of records ``(n, ...)``, float64 ``(n, n)``; of equal records the slope is 0."""
    flat = values.flatten(1).double()
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
