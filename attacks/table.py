"""Attribute attacker on letters: tables of how often every class gave every letter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.selection import SCORED_DRAWS, AttributeProblem, pose_attribute
from privhier.attacks.refusals import attribute_refusal, letters_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option

Table = npt.NDArray[np.float64]
Tried = tuple[float, tuple[float, float | None], FloatArray]
"""Score, smoothings and probabilities of a candidate."""
_TINY = 1e-12
"""Keeps logarithms of what was never seen finite."""


@attacks.register("table")
@dataclass(frozen=True)
class TableAttack(Attack):
    """Bayes' rule on counted letters; the smoothing is chosen on the attacker's own validation split.

    With one letter a record the counted class-conditional frequencies are the optimal attacker's, as the
    auxiliary set grows. Several letters (T releases, M groups, task labels where the view holds them) are
    multiplied as if independent given the class; where their joint alphabet is small enough its own table is
    tried too, backed off to that product. All K draws of an auxiliary record count, together as one record.

    Attributes:
        target: Attribute under attack.
        smoothing: Records added to every letter, of the classes as they are mixed overall; tried. A letter
            that was never seen so says nothing, and one seen once little.
        joint_smoothing: Records added to the joint alphabet at the product's frequencies, in all; tried.
        max_joint: Letters of the joint alphabet, times classes, up to which it has a table of its own.
        max_cells: Letters times classes of all tables together, at most.
    """

    kind: ClassVar[Kind] = "attribute"
    smoothing: tuple[float, ...] = option((0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0), low=1e-6)
    joint_smoothing: tuple[float, ...] = option((1.0, 10.0, 100.0, 1000.0), low=1e-6)
    max_joint: int = option(100_000, low=0)
    max_cells: int = option(50_000_000, low=1)

    def refuses(self, view: View) -> str | None:
        """Releases that are no letters, too many cells to count, or nothing to learn the target from."""
        reason = letters_refusal(view) or attribute_refusal(view, self.target)
        if reason is None:
            cells = sum(_sizes(view)) * view.aux.n_classes[self.target]
            if cells > self.max_cells:
                return f"its tables would have {cells} cells, more than the {self.max_cells} it is for"
        return reason

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, "table")
        drawn = [_columns(view, view.aux.releases(k), view.aux.task_labels) for k in range(view.aux.draws)]
        scored = min(view.aux.draws, SCORED_DRAWS)
        held_out = np.concatenate([columns[problem.split.validation] for columns in drawn[:scored]])
        tables = self._tables(view, problem, drawn, problem.split.train)
        chosen, validation = self._choice(problem, tables, held_out)
        everyone = np.sort(np.concatenate([problem.split.train, problem.split.validation]))
        final = self._tables(view, problem, drawn, everyone)
        victims = final.posterior(_columns(view, view.releases, view.task_labels), *chosen)
        return problem.result(
            validation=validation,
            victims=victims,
            selected={"smoothing": chosen[0], "joint": chosen[1]},
            queries=view.aux.draws * len(drawn[0]) * int(view.releases.shape[1]),
        )

    def _choice(
        self, problem: AttributeProblem, tables: _Tables, held_out: IntArray
    ) -> tuple[tuple[float, float | None], FloatArray]:
        """The smoothings that score best on the own validation split, of equals the first; what they say."""

        def tried(smoothing: float, joint: float | None) -> Tried:
            probabilities = tables.posterior(held_out, smoothing, joint)
            return problem.score(probabilities), (smoothing, joint), probabilities

        best = max((tried(value, None) for value in self.smoothing), key=_score)
        if tables.joint is not None:
            backed_off = [tried(best[1][0], value) for value in self.joint_smoothing]
            best = max([best, *backed_off], key=_score)
        return best[1:]

    def _tables(
        self, view: View, problem: AttributeProblem, drawn: Sequence[IntArray], rows: IntArray
    ) -> _Tables:
        return _Tables(
            np.concatenate([columns[rows] for columns in drawn]),
            np.tile(problem.labels[rows], len(drawn)),
            sizes=_sizes(view),
            n_classes=problem.n_classes,
            weight=1 / len(drawn),
            max_joint=self.max_joint,
        )


class _Tables:
    """Counts of letters by class.

    Args:
        columns: int64 ``(n, q)``: letters, row by row.
        labels: int64 ``(n,)``.
        sizes: How many letters every column has.
        n_classes: Classes.
        weight: What one row counts for, in records.
        max_joint: See ``TableAttack``.
    """

    def __init__(
        self,
        columns: IntArray,
        labels: IntArray,
        *,
        sizes: Sequence[int],
        n_classes: int,
        weight: float,
        max_joint: int,
    ) -> None:
        self._sizes, self._n_classes = list(sizes), n_classes
        self._total = len(labels) * weight
        self._mix: Table = np.bincount(labels, minlength=n_classes) / len(labels)
        self._counts = [
            _counted(columns[:, place], labels, size, n_classes) * weight for place, size in enumerate(sizes)
        ]
        cells = math.prod(sizes)
        self.joint: Table | None = None
        if len(self._sizes) > 1 and cells * n_classes <= max_joint:
            self.joint = _counted(self._cell(columns), labels, cells, n_classes) * weight

    def posterior(self, columns: IntArray, smoothing: float, joint: float | None) -> FloatArray:
        """Probabilities of the classes, float32 ``(n, classes)``; 0 for one that was never seen."""
        logs = self._product(columns, smoothing)
        if joint is not None and self.joint is not None:
            seen = self.joint[:, self._cell(columns)].T
            logs = np.log((seen + joint * self._mix * np.exp(logs)) / (self._total + joint) + 1e-300)
            logs -= np.log(self._mix + _TINY)
        with np.errstate(divide="ignore"):
            prior = np.log(self._mix)
        return np.asarray(softmax(logs + prior, axis=1), dtype=np.float32)

    def _product(self, columns: IntArray, smoothing: float) -> Table:
        """Log likelihood ``(n, classes)`` of the letters as if independent given the class."""
        logs = np.zeros((len(columns), self._n_classes))
        for place, counts in enumerate(self._counts):
            letters = self._total + smoothing * self._sizes[place]
            shares = (counts / np.maximum(self._mix, _TINY)[:, None] + smoothing) / letters
            logs += np.log(shares + _TINY)[:, columns[:, place]].T
        return logs

    def _cell(self, columns: IntArray) -> IntArray:
        """Number of a row's letters in the joint alphabet."""
        return np.asarray(np.ravel_multi_index(tuple(columns.T), self._sizes), dtype=np.int64)


def _score(tried: Tried) -> float:
    return tried[0]


def _counted(letters: IntArray, labels: IntArray, size: int, n_classes: int) -> Table:
    counts = np.bincount(labels * size + letters, minlength=n_classes * size)
    return counts.reshape(n_classes, size).astype(np.float64)


def _sizes(view: View) -> list[int]:
    """Letters of every column: all releases' groups, then the task labels, each with "not known" beside."""
    assert view.alphabet is not None
    columns = int(view.releases.shape[1]) * view.alphabet.groups
    return [view.alphabet.letters] * columns + [classes + 1 for classes in view.task_classes]


def _columns(view: View, releases: FloatArray, task_labels: IntArray | None) -> IntArray:
    """All letters of every record, int64 ``(n, q)``."""
    assert view.alphabet is not None
    letters = view.alphabet.letters_of(releases).reshape(len(releases), -1)
    if task_labels is None:
        return letters
    known = [labels % (classes + 1) for labels, classes in zip(task_labels.T, view.task_classes, strict=True)]
    return np.column_stack([letters, *known])
