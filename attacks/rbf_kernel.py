"""Attribute attacker on columns: kernel logistic regression with a Gaussian (RBF) kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.pipeline import Pipeline, make_pipeline

from privhier.attacks.base import attacks
from privhier.attacks.parts.column_scores import ColumnAttack, Setting, fit_quietly, logistic
from privhier.attacks.parts.search import LogUniform, OneOf, Range
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option

_MEDIAN_ROWS = 500
"""Rows between which the median distance is taken."""


def median_gamma(columns: FloatArray) -> float:
    """One over the median squared distance between rows of ``(n, q)``: the median heuristic."""
    rows = columns[:: max(1, len(columns) // _MEDIAN_ROWS)].astype(np.float64)
    squares = (rows**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * rows @ rows.T
    return 1 / max(float(np.median(distances[np.triu_indices(len(rows), 1)])), 1e-12)


@attacks.register("rbf_kernel")
@dataclass(frozen=True)
class RbfKernelAttack(ColumnAttack):
    """Logistic regression on Nystroem features (Williams and Seeger, 2001) of an RBF kernel.

    Where there are fewer training rows than landmarks, all of them are landmarks, and the kernel is
    exact. Its gamma is searched as a multiple of the median heuristic's, together with the penalty and
    the scale of the columns. The final fit uses the whole auxiliary set.

    Attributes:
        target: Attribute under attack.
        trials: Random settings tried beside two fixed ones (the median heuristic, C = 10, columns
            standardized or with their spread).
        landmarks: Most landmarks of the kernel's approximation.
        max_columns: Principal components kept of a wider release.
        max_cells: Bound on rows * landmarks * classes of one fit: how many draws are stacked.
        max_iterations: L-BFGS iterations of one fit.
        max_classes: More classes than this are refused.
    """

    stream: ClassVar[str] = "rbf_kernel"
    trials: int = option(8, low=0)
    landmarks: int = option(400, low=2)
    max_columns: int = option(128, low=2)
    max_cells: int = option(5_000_000, low=1000)
    max_iterations: int = option(100, low=1)
    max_classes: int = option(20, low=2)

    def settings(self, view: View) -> Iterator[Setting]:
        """Two fixed ones, then the random ones."""
        yield {"gamma": 1.0, "C": 10.0, "power": 0.0}
        yield {"gamma": 1.0, "C": 10.0, "power": 1.0}
        space: dict[str, Range] = {
            "gamma": LogUniform(0.1, 10.0),
            "C": LogUniform(0.1, 1000.0),
            "power": OneOf((0.0, 0.5, 1.0)),
        }
        yield from self.random(view, space, self.trials)

    def max_rows(self, columns: int, logits: int) -> int:
        """See ``ColumnAttack``."""
        return max(1000, self.max_cells // (self.landmarks * logits))

    def fit(self, view: View, columns: FloatArray, labels: IntArray, setting: Setting) -> Pipeline:
        """See ``ColumnAttack``."""
        kernel = Nystroem(
            gamma=setting["gamma"] * median_gamma(columns),
            n_components=min(self.landmarks, len(columns)),
            random_state=self.seed(view, "landmarks"),
        )
        return fit_quietly(
            make_pipeline(kernel, logistic(setting["C"], self.max_iterations)), columns, labels
        )
