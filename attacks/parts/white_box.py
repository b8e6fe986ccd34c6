"""What white-box attackers share: the edge's noiseless features, its gradients, fresh noise, copies of it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from privhier.attacks.once import once
from privhier.attacks.view import FloatArray, ImageArray, IntArray, View, WhiteBox, seen
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.inputs import normalize
from privhier.models.letter_code import LetterCode
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism


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
    """One new release of every record: noiseless ``(n, T, *shape)`` sanitized as the edge does, as ``seen``.

    Args:
        view: Gives the mechanism and the attacker's seed.
        features: Noiseless features.
        stream: Names of the noise's stream; the same names give the same noise.
    """
    box, noise = weights_of(view), SeededNoise(view.seed, "attack", *stream)
    drawn = []
    for t, edge in enumerate(box.edges):
        z = torch.from_numpy(features[:, t])
        drawn.append(seen(box.mechanism.sanitize(z, noise, edge.codebook)))
    return np.stack(drawn, axis=1)


def predicted_releases(view: View, x: Tensor) -> Tensor:
    """Clipped releases ``(b, T, *shape)`` of images ``(b, 3, H, W)`` in [0, 1]; differentiable.

    Neither noised nor rounded for the wire: what real releases scatter around. Of letters the
    probabilities of every answer ``(b, T, M * K)``, with letters told apart softly, so that there is a slope.
    """
    box = weights_of(view)
    predicted = []
    for edge in box.edges:
        z = box.mechanism.clip_features(edge.features(normalize(x * 255)))
        predicted.append(z if edge.codebook is None else _answers(z, edge.codebook, box.mechanism))
    return torch.stack(predicted, dim=1) if len(predicted) > 1 else predicted[0].unsqueeze(1)


def _answers(z: Tensor, code: LetterCode, mechanism: ReleaseMechanism) -> Tensor:
    """Probabilities of answers ``(b, M * K)``: softmax over squared distances, then the channel."""
    places = code.places.double()
    distances = (code.seen_as(z)[:, :, None] - places).square().sum(dim=-1)
    apart = torch.cdist(places, places).square()
    apart = apart.masked_fill(apart <= 0, torch.inf).amin(dim=-1)
    scale = apart.masked_fill(apart.isinf(), 0).mean().clamp_min(1e-12)
    soft = torch.softmax(-distances / scale, dim=-1).to(z.dtype)
    if mechanism.channel is not None:
        soft = soft @ mechanism.channel.matrix.to(soft)
    return soft.flatten(1)


def own_copy(view: View, t: int = -1) -> EdgeSegment:
    """A trainable copy of an edge state; the view's own stays as it is."""
    edge = copy.deepcopy(weights_of(view).edges[t])
    for parameter in edge.parameters():
        parameter.requires_grad_(True)
    return edge
