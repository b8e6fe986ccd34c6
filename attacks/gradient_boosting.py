"""Attribute attacker on columns: histogram gradient boosting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from privhier.attacks.base import attacks
from privhier.attacks.parts.column_scores import ColumnAttack, Setting
from privhier.attacks.parts.search import Integers, LogUniform, Range
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option


@attacks.register("gradient_boosting")
@dataclass(frozen=True)
class GradientBoostingAttack(ColumnAttack):
    """Histogram gradient boosting; tree size and learning rate selected, iterations by validation.

    The final fit uses the whole auxiliary set with the selected number of iterations.

    Attributes:
        target: Attribute under attack.
        learning_rates: Tried pairwise with ``leaves``.
        leaves: Largest number of leaves a tree, tried pairwise with ``learning_rates``.
        trials: Random pairs tried beside them.
        iterations: Most boosting iterations.
        max_columns: Principal components kept of a wider release.
        max_cells: Bound on rows * columns of one fit: how many draws are stacked.
        max_classes: More classes than this are refused (one tree a class and iteration).
    """

    stream: ClassVar[str] = "gradient_boosting"
    final_share: ClassVar[int] = 1
    learning_rates: tuple[float, ...] = option((0.1, 0.05, 0.1), low=1e-4, high=1.0)
    leaves: tuple[int, ...] = option((5, 15, 31), low=2)
    trials: int = option(2, low=0)
    iterations: int = option(120, low=1)
    max_columns: int = option(96, low=2)
    max_cells: int = option(600_000, low=1000)
    max_classes: int = option(20, low=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.learning_rates) != len(self.leaves):
            raise ValueError("learning_rates and leaves must be equally long: they are tried pairwise")

    def settings(self, view: View) -> Iterator[Setting]:
        """The given pairs, then the random ones."""
        for rate, leaves in zip(self.learning_rates, self.leaves, strict=True):
            yield {"learning_rate": rate, "leaves": leaves, "iterations": self.iterations}
        space: dict[str, Range] = {"learning_rate": LogUniform(0.03, 0.3), "leaves": Integers(3, 40)}
        for drawn in self.random(view, space, self.trials):
            yield {**drawn, "iterations": self.iterations}

    def max_rows(self, columns: int, logits: int) -> int:
        """See ``ColumnAttack``."""
        return max(1000, self.max_cells // columns)

    def fit(
        self, view: View, columns: FloatArray, labels: IntArray, setting: Setting
    ) -> HistGradientBoostingClassifier:
        """See ``ColumnAttack``."""
        return HistGradientBoostingClassifier(
            learning_rate=setting["learning_rate"],
            max_leaf_nodes=setting["leaves"],
            max_iter=setting["iterations"],
            l2_regularization=1.0,
            max_features=0.5,
            early_stopping=False,
            random_state=self.seed(view, "fit"),
        ).fit(columns, labels)

    def stages(
        self, model: Any, columns: FloatArray, setting: Setting
    ) -> Iterator[tuple[Setting, npt.NDArray[np.floating[Any]]]]:
        """Every fifth iteration: enough to choose from."""
        staged = enumerate(model.staged_predict_proba(columns), start=1)
        for iteration, probabilities in islice(staged, 4, None, 5):
            yield {**setting, "iterations": iteration}, probabilities
