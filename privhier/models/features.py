"""Noiseless edge features of many images: they never leave the edge unless sanitized first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privhier.models.edge import EdgeSegment
from privhier.models.inputs import normalize
from privhier.models.slices import FEWEST, in_slices

_AT_ONCE = 2 * FEWEST
"""Records that go through together on a CPU, whose maps then stay in its cache."""


@torch.no_grad()
def edge_features(
    edge: EdgeSegment,
    images: npt.NDArray[np.uint8],
    records: npt.NDArray[np.int64],
    *,
    device: torch.device,
    batch_size: int = 256,
    outlet: bool = True,
) -> Tensor:
    """Features of ``images[records]``, float32 ``(n, *feature_shape)`` on the CPU; evaluation mode.

    Args:
        edge: The edge segment, on ``device``; its training flag is put back.
        images: uint8 ``(N, 3, H, W)``.
        records: Rows of ``images``.
        device: Where to compute.
        batch_size: Records of one forward.
        outlet: Whether what a defense put at the end of the edge is passed too.
    """
    was_training = edge.training
    edge.eval()
    parts, features = [], edge.features if outlet else edge.inner_features
    size = _AT_ONCE if torch.device(device).type == "cpu" else None
    for start in range(0, len(records), batch_size):
        pixels = torch.from_numpy(np.ascontiguousarray(images[records[start : start + batch_size]]))
        parts.append(in_slices(features, normalize(pixels.to(device)), size).float().cpu())
    edge.train(was_training)
    return torch.cat(parts)
