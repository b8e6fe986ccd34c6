"""What white-box attackers share: the edge's noiseless features, its gradients, fresh noise, copies of it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from privhier.attacks.once import once
from privhier.attacks.view import FloatArray, ImageArray, IntArray, View, WhiteBox
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.inputs import normalize
from privhier.privacy.noise import SeededNoise


def weights_of(view: View) -> WhiteBox:
    """The view's white box; an attack asks ``white_box_refusal`` first."""
    if view.white_box is None:
        raise ValueError("the view has no white box")
    return view.white_box


def clean_features(view: View, images: ImageArray, rows: IntArray) -> FloatArray:
    """Noiseless, unclipped features of the attacker's own images: float32 ``(n, T, *shape)``."""
    device = torch.device(view.device)
    states = [edge_features(edge, images, rows, device=device) for edge in weights_of(view).edges]
    return np.asarray(torch.stack(states, dim=1).numpy(), dtype=np.float32)


def auxiliary_features(view: View) -> FloatArray:
    """``clean_features`` of the whole auxiliary set, computed once for all attacks on the view."""
    images = view.aux.images
    return once(view, "white_box/features", lambda: clean_features(view, images, np.arange(len(images))))


def fresh_releases(view: View, features: FloatArray, *stream: str | int) -> FloatArray:
    """One new release of every record: noiseless ``(n, T, *shape)`` clipped, noised and quantized.

    Args:
        view: Gives the mechanism and the attacker's seed.
        features: Noiseless features.
        stream: Names of the noise's stream; the same names give the same noise.
    """
    mechanism, noise = weights_of(view).mechanism, SeededNoise(view.seed, "attack", *stream)
    drawn = [
        mechanism.sanitize(torch.from_numpy(features[:, t]), noise).values for t in range(features.shape[1])
    ]
    return np.asarray(torch.stack(drawn, dim=1).numpy(), dtype=np.float32)


def predicted_releases(view: View, x: Tensor) -> Tensor:
    """Clipped releases ``(b, T, *shape)`` of images ``(b, 3, H, W)`` in [0, 1]; differentiable.

    Neither noised nor rounded for the wire: what real releases scatter around.
    """
    box = weights_of(view)
    clipped = [box.mechanism.clip_features(edge.features(normalize(x * 255))) for edge in box.edges]
    return torch.stack(clipped, dim=1) if len(clipped) > 1 else clipped[0].unsqueeze(1)


def own_copy(view: View, t: int = -1) -> EdgeSegment:
    """A trainable copy of an edge state; the view's own stays as it is."""
    edge = copy.deepcopy(weights_of(view).edges[t])
    for parameter in edge.parameters():
        parameter.requires_grad_(True)
    return edge
