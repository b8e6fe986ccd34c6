"""Random Fourier features (Rahimi and Recht, 2007): a Gaussian kernel as an inner product."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fourier_features(values: Tensor, frequencies: Tensor) -> Tensor:
    r"""Cosines and sines ``(n, 2 F)`` whose inner products are near :math:`\exp(-\lVert x - y \rVert^2 / 2)`.

    Cosine and sine of each frequency: of the two published forms the one of lower variance for this kernel
    (Sutherland and Schneider, 2015, section 3.1). A record's own product is 1.

    Args:
        values: ``(n, d)``, divided by the bandwidth.
        frequencies: ``(d, F)``, drawn from the standard normal distribution.
    """
    angles = values @ frequencies
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return waves * (1 / math.sqrt(frequencies.shape[1]))


def median_distance(pairs: Tensor) -> Tensor:
    """The median distance of two different records, the usual bandwidth; above 0.

    Args:
        pairs: ``(n, n)``, distances, symmetric. Where most records are equal, as letters are, the mean
            distance stands for the median; where all are, 1.
    """
    rows, columns = torch.triu_indices(len(pairs), len(pairs), offset=1, device=pairs.device)
    apart = pairs[rows, columns]
    if len(apart) == 0:
        return pairs.new_ones(())
    median, mean = apart.median(), apart.mean()
    found = torch.where(median > 0, median, mean)
    return torch.where(found > 0, found, 1)
