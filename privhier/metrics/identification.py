"""Biometric identification: rank-1 in a gallery, true accept rate at a false accept rate.

Legend: m probes, g people in the gallery, E values an embedding, G people, R resamples. All functions
are pure NumPy; wrong shapes raise ``ValueError``. Higher is better for who identifies, hence worse for
privacy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.metrics.classification import mean_resampled
from privhier.metrics.roc import tpr_at_fpr, tpr_at_fpr_resampled

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_CHUNK = 4_000_000
"""Pair weights made at once: bounds working memory to a few hundred MB."""


def cosine_similarities(first: Array, second: Array) -> FloatArray:
    """Cosine of every row of ``first (m, E)`` with every row of ``second (g, E)``: float64 ``(m, g)``."""
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"expected (m, E) and (g, E), got {first.shape} and {second.shape}")
    return np.asarray(_unit(first) @ _unit(second).T)


def rank1_hits(similarities: Array, probe_people: Array, gallery_people: Array) -> FloatArray:
    """Whether each probe's most similar gallery photo shows its own person (closed-set identification).

    Closed set: every probe's person is in the gallery (Phillips, Grother and Micheals, 2011, "Evaluation
    methods in face recognition", cumulative match characteristic at rank 1). Photos that are equally
    similar share the hit, as if one of them were drawn; so an embedding that is the same for everybody
    scores chance, 1/g with one photo a person.

    Args:
        similarities: ``(m, g)``, finite; larger says "same person".
        probe_people: ``(m,)`` person of each probe.
        gallery_people: ``(g,)`` person of each gallery photo; several photos of one are allowed.

    Returns:
        float64 ``(m,)`` in [0, 1]; its mean is the rank-1 rate.

    Example:
        >>> import numpy as np
        >>> rank1_hits(np.array([[0.9, 0.1], [0.8, 0.3], [0.5, 0.5]]), np.array([4, 7, 7]), np.array([4, 7]))
        array([1. , 0. , 0.5])
    """
    similarities, gallery_people = np.asarray(similarities), np.asarray(gallery_people)
    if similarities.shape != (len(probe_people), len(gallery_people)) or not len(gallery_people):
        raise ValueError(
            f"expected (m, g) similarities for {len(probe_people)} probes and {len(gallery_people)} gallery "
            f"photos, at least one, got {similarities.shape}"
        )
    if not np.isfinite(similarities).all():
        raise ValueError("similarities must be finite")
    if not np.isin(probe_people, gallery_people).all():
        raise ValueError("closed-set identification needs every probe's person in the gallery")
    best = similarities == similarities.max(axis=1, keepdims=True)
    own = np.asarray(probe_people)[:, None] == gallery_people[None, :]
    return np.asarray((best & own).sum(axis=1) / best.sum(axis=1), dtype=np.float64)


def rank1_resampled(hits: Array, probe_people: Array, identity_weights: Array) -> FloatArray:
    """Rank-1 rate under a bootstrap over people; the gallery is part of the task and stays.

    Args:
        hits: ``(m,)`` from ``rank1_hits``.
        probe_people: ``(m,)`` column of ``identity_weights`` of each probe's person.
        identity_weights: ``(R, G)``, how often each person is drawn.

    Returns:
        ``(R,)``; nan where no probe's person is drawn.
    """
    return mean_resampled(np.asarray(hits), np.asarray(identity_weights)[:, np.asarray(probe_people)])


def true_accept_rate(scores: Array, same: Array, far: float) -> float:
    """Share of same-person pairs accepted by the threshold that accepts at most ``far`` of the others.

    The true-positive rate at a false-positive rate, in biometrics' words, over pairs of photos.

    Args:
        scores: ``(m,)`` similarity of each pair, finite.
        same: ``(m,)`` bool.
        far: False accept rate in [0, 1], e.g. 0.01 or 0.001.

    Returns:
        A value in [0, 1]; nan without same-person pairs, or with fewer than ``1 / far`` others, which
        cannot resolve so low a rate.
    """
    return tpr_at_fpr(np.asarray(scores), np.asarray(same).astype(bool), far)


def true_accept_rate_resampled(
    scores: Array, first: Array, second: Array, identity_weights: Array, far: float
) -> FloatArray:
    """``true_accept_rate`` under a bootstrap over people.

    A person drawn w times brings its own pairs w times; a pair of two people counts with the product of
    their weights. The threshold is chosen anew in every resample.

    Args:
        scores: ``(m,)`` similarity of each pair.
        first: ``(m,)`` column in ``identity_weights`` of the person on the first photo.
        second: The same for the second; equal numbers mean the same person.
        identity_weights: ``(R, G)``.
        far: As in ``true_accept_rate``.

    Returns:
        ``(R,)``; nan where a kind of pairs is missing or too rare.
    """
    scores, first, second = np.asarray(scores), np.asarray(first), np.asarray(second)
    same = first == second
    result = np.empty(len(identity_weights))
    step = max(1, _CHUNK // max(1, len(first)))
    for start in range(0, len(identity_weights), step):
        block = np.asarray(identity_weights[start : start + step], dtype=np.float64)
        pairs = block[:, first] * np.where(same, 1.0, block[:, second])
        result[start : start + step] = tpr_at_fpr_resampled(scores, same, far, pairs)
    return result


def _unit(rows: Array) -> FloatArray:
    exact = np.asarray(rows, dtype=np.float64)
    return np.asarray(exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-300))
