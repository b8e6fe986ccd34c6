"""The best trade of releases that are functions of the true task labels, told in areas under ROC curves.

What is solved for is balanced accuracy, which is linear in a channel (``label_space.py``); an AUC is not. So
these are the areas of channels that are best by balanced accuracy: points that releases of labels reach.

Legend: Y cells of task labels, S classes of the secret, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.metrics.label_space import LabelCurve, best_utility, label_floor, task_gain
from privhier.metrics.optimal import best_balanced_accuracy, best_macro_auc

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

MOST_CELLS = 36
"""Cells up to which a curve takes a second."""


def label_limit(counts: Array, sizes: Sequence[int], *, area: bool, points: int = 21) -> LabelCurve | None:
    """Leakage of the secret and mean task AUC of functions of the task labels, from a constant to all.

    Args:
        counts: ``(Y, S)`` records with each cell and each class.
        sizes: ``(T,)`` classes of every task, their product being Y.
        area: Leakage as (macro) AUC; otherwise as balanced accuracy.
        points: At least 2.

    Returns:
        Leakage ascending, utility rising with it: of all points only those that no other beats. None
        where there are more than ``MOST_CELLS`` cells, or fewer than two classes of the secret or of every
        task occur.

    Example:
        >>> curve = label_limit(np.array([[30, 10], [10, 30]]), [2], area=True, points=3)
        >>> curve.leakage.tolist(), curve.utility.tolist()
        ([0.5, 0.625, 0.75], [0.5, 0.75, 1.0])
    """
    counts = np.asarray(counts, dtype=np.float64)
    counts = counts[:, counts.sum(axis=0) > 0]
    tasks = [_of_task(sizes, task) for task in range(len(sizes))]
    shares = [np.bincount(labels, weights=counts.sum(axis=1)) for labels in tasks]
    if len(counts) > MOST_CELLS or counts.shape[1] < 2 or not all((share > 0).sum() > 1 for share in shares):
        return None
    joint = counts / counts.sum()
    gain = task_gain(joint, sizes)
    found = [(0.5 if area else 1 / joint.shape[1], 0.5)]
    for limit in np.linspace(1 / joint.shape[1], label_floor(joint)[0], points):
        channel = best_utility(joint, gain, float(limit))[1]
        found.append(_told(joint, channel, tasks, area))
    found.append(_told(joint, np.eye(len(joint)), tasks, area))
    return _unbeaten(np.array(found))


def _of_task(sizes: Sequence[int], task: int) -> npt.NDArray[np.int64]:
    """``(Y,)`` the task's label in every cell."""
    return np.asarray(np.unravel_index(np.arange(int(np.prod(sizes))), tuple(sizes))[task], dtype=np.int64)


def _told(joint: FloatArray, channel: FloatArray, tasks: Sequence[Array], area: bool) -> tuple[float, float]:
    """What the channel ``(Y, A)`` tells of the secret, and of the tasks on average."""
    secret, secret_shares = (joint.T @ channel), joint.sum(axis=0)
    conditional = secret / secret_shares[:, None]
    leaked = best_macro_auc(conditional, secret_shares) if area else best_balanced_accuracy(conditional)
    areas = []
    for labels in tasks:
        members = np.equal(labels, np.unique(labels)[:, None]) * joint.sum(axis=1)
        members = members[members.sum(axis=1) > 0]
        shares = members.sum(axis=1)
        areas.append(float(best_macro_auc(members @ channel / shares[:, None], shares)))
    return float(leaked), float(np.mean(areas))


def _unbeaten(found: FloatArray) -> LabelCurve:
    """Ascending in both; of points with one leakage the most useful."""
    found = found.round(9)  # the solver's last digits are noise
    found = found[np.lexsort((-found[:, 1], found[:, 0]))]
    kept, best = [], -np.inf
    for leaked, useful in found:
        if useful > best:
            kept.append((leaked, useful))
            best = useful
    return LabelCurve(np.array([one[0] for one in kept]), np.array([one[1] for one in kept]))
