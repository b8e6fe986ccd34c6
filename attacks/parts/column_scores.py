"""Classifiers of columns: what attribute attackers with a ``fit`` and a ``predict_proba`` share."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from privhier.attacks.base import Attack, AttackResult, Kind
from privhier.attacks.parts.features import FeatureBank
from privhier.attacks.parts.search import Range, random_settings
from privhier.attacks.parts.selection import SCORED_DRAWS, AttributeProblem, pose_attribute
from privhier.attacks.refusals import attribute_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.seeding import numpy_stream, stream_seed

Setting = Mapping[str, Any]
"""Hyper-parameters of one candidate; ``power`` is the share of their spread that columns keep (0: none)."""


Fitted = TypeVar("Fitted", bound=Any)


class Classifier(Protocol):
    """A fitted classifier as scikit-learn has them."""

    classes_: IntArray

    def predict_proba(self, columns: FloatArray) -> npt.NDArray[np.floating[Any]]:
        """``(n, q)`` to probabilities of ``classes_``."""
        ...


def all_classes(probabilities: FloatArray, classes: IntArray, n_classes: int) -> FloatArray:
    """Columns ``(n, seen classes)`` put in their places among all K: float32 ``(n, K)``, 0 elsewhere."""
    full = np.zeros((len(probabilities), n_classes), dtype=np.float32)
    full[:, classes] = probabilities
    return full


def logistic(penalty: float, max_iterations: int) -> LogisticRegression:
    """Multinomial logistic regression with an L2 penalty of strength 1 / C, not yet fitted."""
    return LogisticRegression(C=penalty, max_iter=max_iterations, tol=1e-3)


def fit_quietly(model: Fitted, columns: FloatArray, labels: IntArray) -> Fitted:
    """``model`` fitted; without warning of an iteration limit."""
    with warnings.catch_warnings():
        # The iteration limit is a stopping rule chosen for time; selection judges the outcome.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted: Fitted = model.fit(columns, labels)
        return fitted


def fit_logistic(
    columns: FloatArray, labels: IntArray, penalty: float, max_iterations: int
) -> LogisticRegression:
    """Logistic regression of ``labels`` ``(n,)`` on ``columns`` ``(n, q)``."""
    return fit_quietly(logistic(penalty, max_iterations), columns, labels)


def training_rows(
    bank: FeatureBank, problem: AttributeProblem, indices: IntArray, max_rows: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """As many draws of the records as fit ``max_rows``; a random part of the records if none does."""
    draws = int(np.clip(max_rows // len(indices), 1, bank.draws))
    if len(indices) > max_rows:
        indices = np.sort(rng.choice(indices, max_rows, replace=False))
    return bank.rows(indices, draws), np.tile(problem.labels[indices], draws)


class ColumnAttack(Attack):
    """An attribute attacker on columns: the setting that does best on its own validation split is used.

    Columns are all T releases of a record side by side and their mean, standardized, on principal axes
    where a release is wider than ``max_columns``; task labels, where the view holds them, are columns
    too. Several draws of each auxiliary record are stacked as rows. The final fit uses the whole
    auxiliary set.

    A subclass says ``settings`` and ``fit``, has a field ``max_columns``, and may bound what it is given
    (``max_rows``, ``max_classes``), say more of a fit (``stages``) and of its choice (``described``).
    """

    kind: ClassVar[Kind] = "attribute"
    stream: ClassVar[str]
    """Name of its random streams, as registered."""
    final_share: ClassVar[int] = 2
    """Rows of the final fit over those of a candidate, at most."""
    max_classes: int = 1_000_000
    max_columns: int

    @classmethod
    def broken_rules(cls) -> Iterator[str]:
        """``stream`` and ``max_columns`` are said by every one."""
        if not isinstance(getattr(cls, "stream", None), str):
            yield 'it lacks stream: ClassVar[str] = "its_name"'
        if "max_columns" not in {one.name for one in fields(cls)}:
            yield "it lacks the field max_columns: int = option(64, low=2)"

    def refuses(self, view: View) -> str | None:
        """Too many classes, or nothing to learn the target from."""
        if view.aux.n_classes.get(self.target, 0) > self.max_classes:
            return f"{view.aux.n_classes[self.target]} classes, more than the {self.max_classes} it is for"
        return attribute_refusal(view, self.target)

    @abstractmethod
    def settings(self, view: View) -> Iterable[Setting]:
        """The candidates, in order; of equals the first is used."""

    @abstractmethod
    def fit(self, view: View, columns: FloatArray, labels: IntArray, setting: Setting) -> Classifier:
        """A classifier of ``labels`` ``(n,)`` from ``columns`` ``(n, q)``; seeds from ``self.seed(view)``."""

    def max_rows(self, columns: int, logits: int) -> int:
        """Rows of one candidate's fit, at most, given columns and logits (1 for two classes)."""
        return 10_000

    def stages(
        self, model: Classifier, columns: FloatArray, setting: Setting
    ) -> Iterator[tuple[Setting, npt.NDArray[np.floating[Any]]]]:
        """What one fit offers to choose from: settings, and their probabilities on ``columns``."""
        yield setting, model.predict_proba(columns)

    def described(self, setting: Setting) -> dict[str, Any]:
        """The chosen setting as the result shows it."""
        return dict(setting)

    def seed(self, view: View, purpose: str) -> int:
        """A seed for a library, of this attack's own stream."""
        return stream_seed(view.seed, "attack", self.stream, self.target, purpose) % 2**32

    def random(self, view: View, space: Mapping[str, Range], trials: int) -> list[dict[str, Any]]:
        """``trials`` random settings from ``space``."""
        return random_settings(view, self.stream, self.target, space, trials)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, self.stream)
        bank = FeatureBank(view, max_columns=self.max_columns, name=self.stream)
        rng = numpy_stream(view.seed, "attack", self.stream, self.target)
        held_out = bank.rows(problem.split.validation, min(bank.draws, SCORED_DRAWS))
        max_rows = self.max_rows(bank.columns, problem.n_classes if problem.n_classes > 2 else 1)
        columns, labels = training_rows(bank, problem, problem.split.train, max_rows, rng)
        best: tuple[float, Setting, FloatArray] | None = None
        for setting in self.settings(view):
            scale = _scale(bank, setting)
            model = self.fit(view, columns * scale, labels, setting)
            for chosen, said in self.stages(model, held_out * scale, setting):
                probabilities = all_classes(said, model.classes_, problem.n_classes)
                score = problem.score(probabilities)
                if best is None or score > best[0]:
                    best = (score, chosen, probabilities)
        assert best is not None
        _, chosen, probabilities = best
        everyone = np.sort(np.concatenate([problem.split.train, problem.split.validation]))
        columns, labels = training_rows(bank, problem, everyone, self.final_share * max_rows, rng)
        scale = _scale(bank, chosen)
        model = self.fit(view, columns * scale, labels, chosen)
        victims = all_classes(model.predict_proba(bank.victims * scale), model.classes_, problem.n_classes)
        return problem.result(
            validation=probabilities,
            victims=victims,
            selected=self.described(chosen),
            queries=bank.queries,
        )


def _scale(bank: FeatureBank, setting: Setting) -> FloatArray:
    return np.asarray(bank.spread ** setting.get("power", 0.0), dtype=np.float32)
