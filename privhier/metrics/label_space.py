r"""What the task labels alone say about a secret, and the best trade between the two.

Whoever learns the task learns something of every secret that hangs together with it. A release that is a
(randomized) function of the true task labels is a channel from label cells to what the cloud sees; the most
it can do for the task at a given leakage is a linear program.

Legend: Y cells of task labels, S classes of the secret, A actions (what the cloud answers: a class of every
task). Utility and leakage are balanced accuracies; a leakage is that of the optimal attacker.

Why actions suffice: let any release be followed by the cloud's answer. Releasing the answer instead keeps the
utility and tells the attacker no more, so no alphabet needs more letters than there are actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, kron, vstack

from privhier.metrics.optimal import best_balanced_accuracy, best_macro_auc

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

LARGEST = 128
"""Cells, and actions, up to which a curve is computed."""


@dataclass(frozen=True)
class LabelCurve:
    """The best trade between utility and leakage.

    Attributes:
        leakage: ``(P,)`` limits on the balanced accuracy of the secret, ascending from 1/S.
        utility: ``(P,)`` the highest mean balanced accuracy of the tasks at each; concave, never falling.
    """

    leakage: FloatArray
    utility: FloatArray


def label_cells(tasks: Sequence[Array], sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """``(n,)`` the cell of every record: its labels of all tasks as one number, the first counts most.

    Raises:
        ValueError: A label is outside 0..size-1.
    """
    cells = np.zeros(len(tasks[0]), dtype=np.int64)
    for labels, size in zip(tasks, sizes, strict=True):
        labels = np.asarray(labels, dtype=np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < size:
            raise ValueError(f"labels must lie in 0..{size - 1}")
        cells = cells * size + labels
    return cells


def joint_shares(cells: Array, secret: Array, n_cells: int, n_classes: int) -> FloatArray:
    """``(Y, S)``: shares of the records with each cell and each class of the secret; they sum to 1."""
    flat = np.asarray(cells, np.int64) * n_classes + np.asarray(secret, np.int64)
    counts = np.bincount(flat, minlength=n_cells * n_classes)
    if counts.sum() == 0 or len(counts) != n_cells * n_classes:
        raise ValueError("there must be records, within the cells and classes said")
    return np.asarray(counts.reshape(n_cells, n_classes) / counts.sum())


def task_gain(joint: Array, sizes: Sequence[int]) -> FloatArray:
    r"""``(Y, A)``: what answering a in cell y adds to the mean balanced accuracy of the tasks; A = Y.

    A channel W has utility :math:`\sum_{ya} g_{ya} W(a | y)` with :math:`g_{ya} = \frac1T \sum_t P(y)\,[a_t =
    y_t] / (K_t P(y_t))`, over the classes that occur.

    Args:
        joint: ``(Y, S)``, as ``joint_shares`` gives it.
        sizes: ``(T,)`` classes of every task, their product being Y.
    """
    shares = np.asarray(joint, dtype=np.float64).sum(axis=1)
    if int(np.prod(sizes)) != len(shares):
        raise ValueError(f"{list(sizes)} classes do not make {len(shares)} cells")
    labels = np.stack(np.unravel_index(np.arange(len(shares)), tuple(sizes)))
    gain = np.zeros((len(shares), len(shares)))
    for of_task, size in zip(labels, sizes, strict=True):
        marginal = np.bincount(of_task, weights=shares, minlength=size)
        present = np.maximum(marginal, np.finfo(np.float64).tiny)[of_task] * (marginal > 0).sum()
        gain += (of_task[:, None] == of_task) * (shares / present)[:, None]
    return gain / len(sizes)


def label_floor(joint: Array) -> tuple[float, float]:
    """Balanced accuracy and (macro) AUC of the optimal attacker who is given the true task labels.

    Args:
        joint: ``(Y, S)``; every class of the secret must occur.
    """
    conditional, shares = _conditional(joint)
    return float(best_balanced_accuracy(conditional)), float(best_macro_auc(conditional, shares))


def best_utility(joint: Array, gain: Array, limit: float) -> tuple[float, FloatArray]:
    r"""The highest utility of a function of the labels under a limit on leakage, and a channel that has it.

    .. math:: \max_W \sum_{ya} g_{ya} W(a|y) \quad\text{where}\quad
        \frac1S \sum_a \max_s \sum_y P(y|s) W(a|y) \le \lambda.

    Args:
        joint: ``(Y, S)`` shares; every class of the secret must occur.
        gain: ``(Y, A)``, for instance ``task_gain``.
        limit: lambda, at least 1/S (what a constant leaks).

    Returns:
        The utility, and ``(Y, A)`` whose rows sum to 1.

    Raises:
        ValueError: The shapes do not fit, there are more than ``LARGEST`` cells or actions, or the limit is
            below 1/S.
    """
    program = _Program.of(joint, gain)
    if not limit >= 1 / program.classes - 1e-12:
        raise ValueError(f"nothing leaks less than 1/{program.classes}, got {limit}")
    return program.solve(-program.utility, program.leakage, max(limit, 1 / program.classes))


def least_leakage(joint: Array, gain: Array, wanted: float) -> tuple[float, FloatArray]:
    """The least leakage of a function of the labels that has at least this utility, and a channel.

    The same program the other way round; arguments as for ``best_utility``.

    Args:
        joint: ``(Y, S)``.
        gain: ``(Y, A)``.
        wanted: Utility, at most ``gain.max(axis=1).sum()``.

    Returns:
        The leakage, and ``(Y, A)``.

    Raises:
        ValueError: As ``best_utility``; or no channel has that utility.
    """
    program = _Program.of(joint, gain)
    most = float(np.asarray(gain).max(axis=1).sum())
    if not wanted <= most + 1e-12:
        raise ValueError(f"the utility is at most {most}, got {wanted}")
    leaked, channel = program.solve(program.leakage, -program.utility, -min(wanted, most * (1 - 1e-12)))
    return -leaked, channel


def label_curve(joint: Array, gain: Array, *, points: int = 21, secret_known: bool = False) -> LabelCurve:
    """The trade-off curve, from a constant answer up to where all utility is had.

    Args:
        joint: ``(Y, S)`` shares.
        gain: ``(Y, A)``.
        points: P, at least 2, equally far apart in leakage.
        secret_known: Let the release depend on the secret too (a channel from Y * S cells), which may hide
            what the labels give away: no release whatever does better. Otherwise it is a function of
            the task labels.

    Raises:
        ValueError: As ``best_utility``.
    """
    joint, gain = np.asarray(joint, dtype=np.float64), np.asarray(gain, dtype=np.float64)
    if points < 2:
        raise ValueError(f"a curve needs at least 2 points, got {points}")
    if secret_known:
        shares = joint.sum(axis=1, keepdims=True)
        within = np.divide(joint, shares, out=np.zeros_like(joint), where=shares > 0)
        gain = (within[:, :, None] * gain[:, None, :]).reshape(joint.size, -1)
        joint = (joint[:, :, None] * np.eye(joint.shape[1])).reshape(joint.size, -1)
    high = least_leakage(joint, gain, float(gain.max(axis=1).sum()))[0]
    limits = np.linspace(1 / joint.shape[1], high, points)
    return LabelCurve(limits, np.array([best_utility(joint, gain, float(limit))[0] for limit in limits]))


@dataclass(frozen=True)
class _Program:
    """Unknowns: W row by row, then for every answer what the attacker gains from it, at least each class'.

    Attributes:
        classes: S.
        shape: (Y, A).
        utility, leakage: Coefficients of either in the unknowns.
        gained: Matrix that is at most 0.
        rows: Matrix that is 1: the rows of W.
    """

    classes: int
    shape: tuple[int, int]
    utility: FloatArray
    leakage: FloatArray
    gained: csr_array
    rows: csr_array

    @classmethod
    def of(cls, joint: Array, gain: Array) -> _Program:
        conditional, _ = _conditional(joint)
        gain = np.asarray(gain, dtype=np.float64)
        (classes, cells), actions = conditional.shape, gain.shape[-1]
        if gain.shape != (cells, actions) or not np.isfinite(gain).all():
            raise ValueError(f"gain must be finite, (Y, A) with Y = {cells}, got {gain.shape}")
        if max(cells, actions) > LARGEST:
            raise ValueError(f"at most {LARGEST} cells and actions, got {cells} and {actions}")
        below = kron(np.ones((classes, 1)), -np.eye(actions))
        return cls(
            classes,
            (cells, actions),
            np.concatenate([gain.ravel(), np.zeros(actions)]),
            np.concatenate([np.zeros(cells * actions), np.full(actions, 1 / classes)]),
            csr_array(hstack([kron(conditional, np.eye(actions)), below])),
            csr_array(hstack([kron(np.eye(cells), np.ones((1, actions))), csr_array((cells, actions))])),
        )

    def solve(self, cost: FloatArray, limited: FloatArray, limit: float) -> tuple[float, FloatArray]:
        """The highest value of ``-cost`` with ``limited`` at most ``limit``, and W ``(Y, A)``."""
        (cells, actions), inequalities = self.shape, self.gained.shape[0]
        solution = linprog(
            cost,
            A_ub=csr_array(vstack([self.gained, csr_array(limited[None])])),
            b_ub=np.concatenate([np.zeros(inequalities), [limit]]),
            A_eq=self.rows,
            b_eq=np.ones(cells),
            method="highs",
        )
        if not solution.success:
            raise ValueError(f"the linear program must have a solution: {solution.message}")
        channel = np.clip(solution.x[: cells * actions].reshape(cells, actions), 0, None)
        return float(-solution.fun), np.asarray(channel / channel.sum(axis=1, keepdims=True))


def _conditional(joint: Array) -> tuple[FloatArray, FloatArray]:
    """``(S, Y)`` distributions of the cells within each class, and ``(S,)`` the classes' shares."""
    joint = np.asarray(joint, dtype=np.float64)
    if joint.ndim != 2 or joint.shape[1] < 2 or not np.isfinite(joint).all() or (joint < 0).any():
        raise ValueError(f"joint must hold shares (Y, S) with S >= 2, got shape {joint.shape}")
    shares = joint.sum(axis=0)
    if (shares == 0).any():
        raise ValueError("every class of the secret must occur")
    return (joint / shares).T, shares
