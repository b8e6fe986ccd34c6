"""Attribute attacker on columns: multinomial logistic regression."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from sklearn.linear_model import LogisticRegression

from privhier.attacks.base import attacks
from privhier.attacks.parts.column_scores import ColumnAttack, Setting, fit_logistic
from privhier.attacks.parts.search import LogUniform, OneOf, Range
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option

_COLUMNS = {0.0: "standardized", 1.0: "spread"}


@attacks.register("logistic_regression")
@dataclass(frozen=True)
class LogisticRegressionAttack(ColumnAttack):
    """Multinomial logistic regression on principal components; penalty and column scale selected.

    Whether columns are standardized (every principal axis counts the same) or keep their spread
    (the leading axes count more) matters as much as the penalty on wide releases; both are tried.
    The final fit uses the whole auxiliary set.

    Attributes:
        target: Attribute under attack.
        penalties: Inverse penalty strengths C that are tried, with both column scales each.
        trials: Random settings tried beside them: C over the same decades, columns between both scales.
        max_columns: Principal components kept of a wider release.
        max_cells: Bound on rows * columns * classes of one fit: how many draws are stacked.
        max_iterations: L-BFGS iterations of one fit.
    """

    stream: ClassVar[str] = "logistic_regression"
    penalties: tuple[float, ...] = option((0.01, 0.1, 1.0, 10.0, 100.0), low=1e-8)
    trials: int = option(4, low=0)
    max_columns: int = option(256, low=2)
    max_cells: int = option(20_000_000, low=1000)
    max_iterations: int = option(200, low=1)

    def settings(self, view: View) -> Iterator[Setting]:
        """Powers of the columns' spread and inverse penalties: the grid, then the random ones."""
        for power, penalty in product((0.0, 1.0), self.penalties):
            yield {"power": power, "penalty": penalty}
        space: dict[str, Range] = {
            "power": OneOf((0.0, 0.25, 0.5, 0.75, 1.0)),
            "penalty": LogUniform(min(self.penalties), max(self.penalties)),
        }
        yield from self.random(view, space, self.trials)

    def max_rows(self, columns: int, logits: int) -> int:
        """See ``ColumnAttack``."""
        return max(1000, self.max_cells // (columns * logits))

    def fit(self, view: View, columns: FloatArray, labels: IntArray, setting: Setting) -> LogisticRegression:
        """See ``ColumnAttack``."""
        return fit_logistic(columns, labels, setting["penalty"], self.max_iterations)

    def described(self, setting: Setting) -> dict[str, Any]:
        """C, and what was done to the columns."""
        power = setting["power"]
        return {"C": setting["penalty"], "columns": _COLUMNS.get(power, f"spread^{power:g}")}
