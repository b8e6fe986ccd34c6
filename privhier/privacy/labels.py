"""Label privacy: K-ary randomized response on task labels (``channels.py``), and learning from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from privhier.errors import ConfigError
from privhier.privacy.channels import RandomizedResponse
from privhier.privacy.noise import NoiseSource


def keep_probability(epsilon: float, classes: int) -> float:
    """Probability of a true answer, ``e^eps / (e^eps + K - 1)``; every other class is equally likely.

    Args:
        epsilon: Pure, replace-one, above 0.
        classes: K, at least 2.

    Raises:
        ConfigError: An argument is out of its range.
    """
    return _channel(epsilon, classes).keep


def flip_matrix(epsilon: float, classes: int) -> Tensor:
    """``(K, K)`` float64: row is the true class, column the answer; rows sum to 1."""
    return _channel(epsilon, classes).matrix


def randomize(labels: Tensor, epsilon: float, classes: int, source: NoiseSource) -> Tensor:
    """One randomized response for each label. Draw once and keep: every draw costs ``epsilon``.

    Args:
        labels: int64 ``(n,)`` in [0, K).
        epsilon: Pure, replace-one, above 0.
        classes: K.
        source: Where the draws come from; never a generator of few bits, which could be searched.

    Returns:
        int64 ``(n,)``.

    Raises:
        ConfigError: A label lies outside [0, K), or an argument is out of its range.
    """
    channel = _channel(epsilon, classes)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise _error("labels", int(labels.min()), f"must lie in [0, {classes})")
    return channel.sample(labels, source)


def corrected_cross_entropy(logits: Tensor, answers: Tensor, matrix: Tensor) -> Tensor:
    """Forward-corrected cross-entropy (Patrini and others, 2017, theorem 2): its minimizer is the clean one.

    Args:
        logits: ``(B, K)`` of the clean classes.
        answers: int64 ``(B,)`` randomized responses.
        matrix: ``flip_matrix``.

    Returns:
        Mean over the batch, in nats.
    """
    chances = torch.log_softmax(logits, dim=1)
    reached = torch.log(matrix.to(logits))[:, answers].T  # (B, K): log P(answer | class)
    return -torch.logsumexp(chances + reached, dim=1).mean()


def _channel(epsilon: float, classes: int) -> RandomizedResponse:
    if not 0 < epsilon < math.inf:
        raise _error("label_epsilon", epsilon, "must be above 0 and finite")
    if classes < 2:
        raise _error("classes", classes, "must be at least 2")
    return RandomizedResponse(classes, epsilon)


def _error(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"privacy.{field}", value=value, rule=rule, remedy=f"Mend privacy.{field}")
