"""Attribute attackers on columns: logistic regression and histogram gradient boosting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, ClassVar

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from privhier.attacks.base import AttackResult, Kind, attacks
from privhier.attacks.features import FeatureBank
from privhier.attacks.options import option
from privhier.attacks.search import Integers, LogUniform, OneOf, Range, random_settings
from privhier.attacks.selection import SCORED_DRAWS, AttributeProblem, attribute_refusal, pose_attribute
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.seeding import numpy_stream, stream_seed

_COLUMNS = {0.0: "standardized", 1.0: "spread"}


def all_classes(probabilities: FloatArray, classes: IntArray, n_classes: int) -> FloatArray:
    """Columns ``(n, seen classes)`` put in their places among all K: float32 ``(n, K)``, 0 elsewhere."""
    full = np.zeros((len(probabilities), n_classes), dtype=np.float32)
    full[:, classes] = probabilities
    return full


def fit_logistic(
    columns: FloatArray, labels: IntArray, penalty: float, max_iterations: int
) -> LogisticRegression:
    """Multinomial logistic regression of ``labels`` ``(n,)`` on ``columns`` ``(n, q)``, L2 penalty 1 / C."""
    with warnings.catch_warnings():
        # The iteration limit is a stopping rule chosen for time; selection judges the outcome.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=max_iterations, tol=1e-3).fit(columns, labels)


def training_rows(
    bank: FeatureBank, problem: AttributeProblem, indices: IntArray, max_rows: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """As many draws of the records as fit ``max_rows``; a random part of the records if none does."""
    draws = int(np.clip(max_rows // len(indices), 1, bank.draws))
    if len(indices) > max_rows:
        indices = np.sort(rng.choice(indices, max_rows, replace=False))
    return bank.rows(indices, draws), np.tile(problem.labels[indices], draws)


@dataclass(frozen=True)
class LogisticRegressionAttack:
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

    kind: ClassVar[Kind] = "attribute"
    white_box: ClassVar[bool] = False
    expensive: ClassVar[bool] = False
    target: str = ""
    penalties: tuple[float, ...] = option((0.01, 0.1, 1.0, 10.0, 100.0), low=1e-8)
    trials: int = option(4, low=0)
    max_columns: int = option(256, low=2)
    max_cells: int = option(20_000_000, low=1000)
    max_iterations: int = option(200, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        start = time.perf_counter()
        problem = pose_attribute(view, self.target, "logistic_regression")
        bank = FeatureBank(view, max_columns=self.max_columns, name="logistic_regression")
        rng = numpy_stream(view.seed, "attack", "logistic_regression", self.target)
        held_out = bank.rows(problem.split.validation, min(bank.draws, SCORED_DRAWS))
        logits = problem.n_classes if problem.n_classes > 2 else 1
        max_rows = max(1000, self.max_cells // (bank.columns * logits))
        columns, labels = training_rows(bank, problem, problem.split.train, max_rows, rng)
        best: tuple[float, float, float, FloatArray] | None = None
        for power, penalty in self._settings(view):
            scale = bank.spread**power
            model = fit_logistic(columns * scale, labels, penalty, self.max_iterations)
            probabilities = self._predict(model, held_out * scale, problem)
            score = problem.score(probabilities)
            if best is None or score > best[0]:
                best = (score, power, penalty, probabilities)
        assert best is not None
        _, power, penalty, probabilities = best
        everyone = np.sort(np.concatenate([problem.split.train, problem.split.validation]))
        columns, labels = training_rows(bank, problem, everyone, 2 * max_rows, rng)
        scale = bank.spread**power
        model = fit_logistic(columns * scale, labels, penalty, self.max_iterations)
        return problem.result(
            validation=probabilities,
            victims=self._predict(model, bank.victims * scale, problem),
            selected={"C": penalty, "columns": _COLUMNS.get(power, f"spread^{power:g}")},
            seconds=time.perf_counter() - start,
            queries=bank.queries,
        )

    def _settings(self, view: View) -> Iterator[tuple[float, float]]:
        """Powers of the columns' spread and inverse penalties: the grid, then the random ones."""
        yield from product((0.0, 1.0), self.penalties)
        space: dict[str, Range] = {
            "power": OneOf((0.0, 0.25, 0.5, 0.75, 1.0)),
            "penalty": LogUniform(min(self.penalties), max(self.penalties)),
        }
        for setting in random_settings(view, "logistic_regression", self.target, space, self.trials):
            yield setting["power"], setting["penalty"]

    @staticmethod
    def _predict(model: LogisticRegression, columns: FloatArray, problem: AttributeProblem) -> FloatArray:
        return all_classes(model.predict_proba(columns), model.classes_, problem.n_classes)


@dataclass(frozen=True)
class GradientBoostingAttack:
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

    kind: ClassVar[Kind] = "attribute"
    white_box: ClassVar[bool] = False
    expensive: ClassVar[bool] = False
    target: str = ""
    learning_rates: tuple[float, ...] = option((0.1, 0.05, 0.1), low=1e-4, high=1.0)
    leaves: tuple[int, ...] = option((5, 15, 31), low=2)
    trials: int = option(2, low=0)
    iterations: int = option(120, low=1)
    max_columns: int = option(96, low=2)
    max_cells: int = option(600_000, low=1000)
    max_classes: int = option(20, low=2)

    def __post_init__(self) -> None:
        if len(self.learning_rates) != len(self.leaves):
            raise ValueError("learning_rates and leaves must be equally long: they are tried pairwise")

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        if view.aux.n_classes.get(self.target, 0) > self.max_classes:
            return f"{view.aux.n_classes[self.target]} classes, more than the {self.max_classes} it is for"
        return attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        start = time.perf_counter()
        problem = pose_attribute(view, self.target, "gradient_boosting")
        bank = FeatureBank(view, max_columns=self.max_columns, name="gradient_boosting")
        rng = numpy_stream(view.seed, "attack", "gradient_boosting", self.target)
        seed = stream_seed(view.seed, "attack", "gradient_boosting", self.target, "fit") % 2**32
        held_out = bank.rows(problem.split.validation, min(bank.draws, SCORED_DRAWS))
        max_rows = max(1000, self.max_cells // bank.columns)
        columns, labels = training_rows(bank, problem, problem.split.train, max_rows, rng)
        best: tuple[float, dict[str, Any], FloatArray] | None = None
        space: dict[str, Range] = {"rate": LogUniform(0.03, 0.3), "leaves": Integers(3, 40)}
        drawn = random_settings(view, "gradient_boosting", self.target, space, self.trials)
        settings = list(zip(self.learning_rates, self.leaves, strict=True))
        for rate, leaves in settings + [(setting["rate"], setting["leaves"]) for setting in drawn]:
            model = self._fit(columns, labels, rate, leaves, self.iterations, seed)
            for iteration, probabilities in self._staged(model, held_out, problem):
                score = problem.score(probabilities)
                if best is None or score > best[0]:
                    setting = {"learning_rate": rate, "leaves": leaves, "iterations": iteration}
                    best = (score, setting, probabilities)
        assert best is not None
        _, chosen, probabilities = best
        everyone = np.sort(np.concatenate([problem.split.train, problem.split.validation]))
        columns, labels = training_rows(bank, problem, everyone, max_rows, rng)
        model = self._fit(
            columns, labels, chosen["learning_rate"], chosen["leaves"], chosen["iterations"], seed
        )
        return problem.result(
            validation=probabilities,
            victims=all_classes(model.predict_proba(bank.victims), model.classes_, problem.n_classes),
            selected=chosen,
            seconds=time.perf_counter() - start,
            queries=bank.queries,
        )

    @staticmethod
    def _fit(
        columns: FloatArray, labels: IntArray, rate: float, leaves: int, iterations: int, seed: int
    ) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            learning_rate=rate,
            max_leaf_nodes=leaves,
            max_iter=iterations,
            l2_regularization=1.0,
            max_features=0.5,
            early_stopping=False,
            random_state=seed,
        ).fit(columns, labels)

    @staticmethod
    def _staged(
        model: HistGradientBoostingClassifier, columns: FloatArray, problem: AttributeProblem
    ) -> Iterator[tuple[int, FloatArray]]:
        """Every fifth iteration: enough to choose from."""
        stages = enumerate(model.staged_predict_proba(columns), start=1)
        for iteration, probabilities in islice(stages, 4, None, 5):
            yield iteration, all_classes(probabilities, model.classes_, problem.n_classes)


attacks.register("logistic_regression")(LogisticRegressionAttack)
attacks.register("gradient_boosting")(GradientBoostingAttack)
