"""Builders of views: what the curious cloud knows, and the same attackers on raw images for reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from privhier.attacks.view import (
    Alphabet,
    AuxiliarySet,
    FloatArray,
    ImageArray,
    IntArray,
    View,
    frozen,
    seen,
)
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism


@dataclass(frozen=True)
class AuxiliarySource:
    """The data set as far as it becomes the attacker's.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, all images.
        rows: Rows of the auxiliary records.
        labels: Attribute to labels int64 ``(N,)``; only the auxiliary rows are handed on.
        n_classes: Attribute to its number of classes.
        groups: int64 ``(N,)``.
    """

    images: ImageArray
    rows: IntArray
    labels: Mapping[str, IntArray]
    n_classes: Mapping[str, int]
    groups: IntArray

    def owned(self, *, draws: int, releases: Callable[[int], FloatArray]) -> AuxiliarySet:
        """The auxiliary records, with the releases the attacker has made of them."""
        return AuxiliarySet(
            images=frozen(self.images[self.rows]),
            labels={name: frozen(values[self.rows]) for name, values in self.labels.items()},
            n_classes=dict(self.n_classes),
            groups=frozen(self.groups[self.rows]),
            draws=draws,
            releases=releases,
        )


def curious_cloud_view(
    *,
    edges: Sequence[EdgeSegment],
    mechanism: ReleaseMechanism,
    victims: FloatArray,
    source: AuxiliarySource,
    draws: int,
    seed: int,
    device: torch.device,
    tail: nn.Module | None,
) -> View:
    """The honest-but-curious cloud: all T releases of every victim, the tail, a labelled auxiliary set.

    The attacker asks the frozen edge states for K fresh releases of its own records; it never sees
    noiseless features, and nothing of the victims but their releases.

    Args:
        edges: The edge states that made the victims' T releases, in order.
        mechanism: How a release is made.
        victims: float32 ``(n, T, *shape)``, or letters ``(n, T, M)`` in any type.
        source: Where the attacker's records come from.
        draws: K.
        seed: The attackers' seed; the noise of their own draws is a stream of it.
        tail: The cloud tail.
    """
    features = torch.stack(
        [edge_features(edge, source.images, source.rows, device=device) for edge in edges], dim=1
    )

    alphabet = Alphabet.of(mechanism)
    made: dict[int, FloatArray] = {}  # one draw: what the attacks of a bench ask for again and again

    def releases(draw: int) -> FloatArray:
        draw = 0 if mechanism.deterministic else draw
        if draw not in made:
            made.clear()
            made[draw] = _drawn(edges, features, mechanism, seed, draw)
        return made[draw]

    return View(
        threat_model="curious_cloud",
        releases=frozen(victims if alphabet is None else alphabet.one_hot(victims)),
        image_shape=_image_shape(source.images),
        aux=source.owned(
            draws=1 if mechanism.deterministic else draws,
            releases=releases,
        ),
        seed=seed,
        device=str(device),
        tail=tail,
        alphabet=alphabet,
    )


def _drawn(
    edges: Sequence[EdgeSegment], features: torch.Tensor, mechanism: ReleaseMechanism, seed: int, draw: int
) -> FloatArray:
    """One read-only draw of every record, float32 ``(n, T, *shape)``."""
    drawn = []
    for t, edge in enumerate(edges):
        noise = SeededNoise(seed, "attacker", draw, t)
        drawn.append(seen(mechanism.sanitize(features[:, t], noise, edge.codebook)))
    array = np.stack(drawn, axis=1)
    array.flags.writeable = False
    return array


def raw_image_view(
    *,
    victims: IntArray,
    source: AuxiliarySource,
    seed: int,
    device: torch.device,
) -> View:
    """The reference: the same attackers given the raw images, scaled to [-1, 1], as a "release"."""

    def pixels(rows: IntArray) -> FloatArray:
        scaled = source.images[rows].astype(np.float32)[:, None]
        scaled /= np.float32(127.5)  # in place: at CelebA's size every copy counts
        scaled -= np.float32(1)
        scaled.flags.writeable = False
        return scaled

    return View(
        threat_model="raw_image",
        releases=pixels(victims),
        image_shape=_image_shape(source.images),
        aux=source.owned(draws=1, releases=lambda draw: pixels(source.rows)),
        seed=seed,
        device=str(device),
    )


def _image_shape(images: ImageArray) -> tuple[int, int, int]:
    channels, height, width = images.shape[1:]
    return int(channels), int(height), int(width)
