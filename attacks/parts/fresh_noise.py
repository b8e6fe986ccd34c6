"""Releases that a holder of the edge's weights makes of its own records, with new noise in every batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, class_probabilities, fit, take
from privhier.attacks.parts.nets import Residual, channel_norm, perceptron, trunk
from privhier.attacks.parts.selection import SCORED_DRAWS, AttributeProblem
from privhier.attacks.parts.white_box import auxiliary_features, fresh_releases, weights_of
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.seeding import torch_stream

_HELD_OUT_VALUES = 50_000_000
"""Values of held-out releases that are kept: enough to choose on, and bounds memory."""


class FreshReleases:
    """New releases of the attacker's records, drawn batch by batch and counted.

    Args:
        view: A white-box view.
        stream: Names of the noise's stream.
    """

    def __init__(self, view: View, *stream: str | int) -> None:
        self._view = view
        self._stream = stream
        self._features = auxiliary_features(view)
        self._drawn = 0

    def __call__(self, rows: IntArray, *number: str | int) -> FloatArray:
        """One release of the records ``rows``, float32 ``(b, T, *shape)``; equal numbers give equal noise."""
        self._drawn += len(rows) * self._features.shape[1]
        return fresh_releases(self._view, self._features[rows], *self._stream, *number)

    def batch(self, rows: IntArray, epoch: int, candidate: str | int) -> Tensor:
        """A training batch on the view's device; no record comes first in two batches of one epoch."""
        drawn = self(rows, candidate, epoch, int(rows[0]))
        return torch.from_numpy(drawn).to(self._view.device)

    def held_out(self, rows: IntArray) -> FloatArray:
        """Several draws of ``rows``, stacked: ``(draws * b, T, *shape)``; one where there is no noise."""
        values = max(1, len(rows) * self._features[0].size)
        wanted = 1 if weights_of(self._view).mechanism.deterministic else SCORED_DRAWS
        draws = int(np.clip(_HELD_OUT_VALUES // values, 1, wanted))
        return np.concatenate([self(rows, "held out", k) for k in range(draws)])

    @property
    def queries(self) -> int:
        """Releases of auxiliary records made so far."""
        return self._drawn


@dataclass(frozen=True)
class FreshPlan:
    """How a network is trained on fresh releases.

    Attributes:
        epochs: Most epochs.
        batch: Records a step.
        learning_rate: Peak rate of AdamW.
        patience: Epochs without a better own-validation score before stopping.
        max_gmacs: Bound on the forward cost of training, in 10^9 multiply-accumulates.
    """

    epochs: int
    batch: int
    learning_rate: float
    patience: int
    max_gmacs: int


@dataclass(frozen=True)
class Candidate:
    """A trained classifier of releases, as an attacker chooses among several.

    Attributes:
        score: On the attacker's own validation split.
        epoch: The epoch that was kept.
        held_out: Posteriors of held-out draws, float32 ``(m, K)``.
        victims: Posteriors of the victims, float32 ``(n, K)``.
    """

    score: float
    epoch: int
    held_out: FloatArray
    victims: FloatArray


def train_classifier(
    network: nn.Module,
    view: View,
    problem: AttributeProblem,
    held_out: FloatArray,
    plan: FreshPlan,
    loss: Callable[[int, Tensor], Tensor],
    seed: int,
    *stream: str | int,
) -> Candidate:
    """Train ``network`` (releases to logits) in place, its epoch chosen on held-out draws.

    Args:
        network: On the view's device.
        view: Gives the victims' releases.
        problem: Gives the training records and the score.
        held_out: Releases ``(m, T, *shape)`` of the validation records.
        plan: See ``FreshPlan``.
        loss: See ``fitting.fit``.
        seed: The attacker's.
        stream: Names of the stream that shuffles.
    """
    train, device = problem.split.train, view.device
    example = take(held_out, [0], device)
    epochs = affordable_epochs(network, example, len(train), plan.epochs, plan.max_gmacs)
    value, epoch = fit(
        network,
        FitPlan(epochs, plan.batch, plan.learning_rate, 0.01, plan.patience),
        records=len(train),
        loss=loss,
        score=lambda: problem.score(class_probabilities(network, held_out, device)),
        generator=torch_stream(seed, *stream),
    )
    return Candidate(
        value,
        epoch,
        class_probabilities(network, held_out, device),
        class_probabilities(network, view.releases, device),
    )


def side_by_side(x: Tensor) -> Tensor:
    """Releases ``(b, T, *shape)`` as maps ``(b, T*c [+ c], h, w)``, and for T > 1 their mean.

    Vectors become maps of 1x1.
    """
    if x.ndim != 5:
        x = x.flatten(2)[..., None, None]
    flat = x.flatten(1, 2)
    return flat if x.shape[1] == 1 else torch.cat([flat, x.mean(dim=1)], dim=1)


class ReleaseNetwork(nn.Module):
    """``body`` on all T releases side by side, standardized by constants of the attacker's own.

    Args:
        body: From ``(b, channels, h, w)``.
        example: Releases ``(n, T, *shape)`` that give the constants.
    """

    def __init__(self, body: nn.Module, example: FloatArray) -> None:
        super().__init__()
        sample = torch.from_numpy(example[:: max(1, len(example) // 1024)].copy())
        self.norm = channel_norm(side_by_side(sample).numpy())
        self.body = body

    def forward(self, releases: Tensor) -> Tensor:
        """Releases ``(b, T, *shape)`` to what the body makes of them."""
        return torch.as_tensor(self.body(self.norm(side_by_side(releases))))


def _one(example: FloatArray) -> Tensor:
    return side_by_side(torch.from_numpy(example[:1].copy()))


def _columns(example: FloatArray) -> int:
    return _one(example).numel()


def _channels_and_side(example: FloatArray) -> tuple[int, int]:
    _, channels, height, width = _one(example).shape
    return channels, max(height, width)


def fresh_classifier(example: FloatArray, n_classes: int, width: int) -> ReleaseNetwork:
    """A new classifier of all T releases: a perceptron on vectors, a small residual network on maps."""
    channels, size = _channels_and_side(example)
    if size < 3:
        body = perceptron(_columns(example), 8 * width, n_classes, 0.3)
        return ReleaseNetwork(nn.Sequential(nn.Flatten(), body), example)
    layers, features = trunk(channels, size, width)
    return ReleaseNetwork(nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(features, n_classes)), example)


def feature_translator(example: FloatArray, shape: tuple[int, ...], width: int) -> ReleaseNetwork:
    """A new network from all T releases to features ``(b, *shape)`` of the shape of one release."""
    channels, size = _channels_and_side(example)
    if len(shape) == 1 or size < 3:
        head = perceptron(_columns(example), 8 * width, int(np.prod(shape)), 0.1)
        return ReleaseNetwork(nn.Sequential(nn.Flatten(), head, nn.Unflatten(1, shape)), example)
    body = nn.Sequential(
        nn.Conv2d(channels, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        Residual(2 * width),
        nn.Conv2d(2 * width, shape[0], 3, padding=1),
    )
    return ReleaseNetwork(body, example)
