"""Property inference: the share of every class in a population of victims, from its releases alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from sklearn.linear_model import LogisticRegression

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.column_scores import all_classes, fit_logistic, training_rows
from privhier.attacks.parts.features import FeatureBank
from privhier.attacks.parts.selection import SCORED_DRAWS, AttributeProblem, OwnSplit, own_split
from privhier.attacks.refusals import attribute_refusal, population_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option
from privhier.seeding import numpy_stream

Doubles = npt.NDArray[np.float64]
_SHRINKAGE = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0)
"""How far an estimate may move from the auxiliary share; 0 is the answer of one who saw nothing."""
_LARGEST = 1024
"""Records of the largest synthetic population: beyond it, the classifier's bias is all that is left."""
_TOLERANCE, _ROUNDS = 1e-6, 200


def adjusted_count(posteriors: Doubles, confusion: Doubles, priors: Doubles) -> Doubles:
    """Shares ``(K,)`` on the simplex whose expected mean posterior is nearest the population's.

    Adjusted classify-and-count (Forman, 2008) in its probabilistic form (Bella et al., 2010): solves
    ``confusion.T @ shares = posteriors.mean(axis=0)`` in least squares, constrained to the simplex.

    Args:
        posteriors: ``(n, K)`` of the population; one-hot rows make it plain classify-and-count.
        confusion: ``(K, K)``, row i the mean posterior of records of class i.
        priors: ``(K,)``, 0 for a class the attacker has never seen, which is given no share.
    """
    seen = np.flatnonzero(priors > 0)
    heavy = 1e3  # the sum-to-one row, so heavy that least squares keeps it
    left = np.vstack([confusion[seen].T, np.full((1, len(seen)), heavy)])
    solved, _ = nnls(left, np.append(posteriors.mean(axis=0), heavy))
    shares = np.zeros(len(priors))
    shares[seen] = solved / solved.sum()
    return shares


def shifted_priors(posteriors: Doubles, priors: Doubles) -> Doubles:
    """Shares ``(K,)`` that maximize the likelihood of a population under prior shift.

    Expectation-maximization on posteriors of a classifier calibrated for ``priors`` (Saerens, Latinne
    and Decaestecker, 2002, equation 2.5).

    Args:
        posteriors: ``(n, K)`` of the population.
        priors: ``(K,)``, class shares of the classifier's own records.
    """
    likelihood = np.divide(posteriors, priors, out=np.zeros_like(posteriors), where=priors > 0)
    shares = priors.copy()
    for _ in range(_ROUNDS):
        joint = likelihood * shares
        updated = (joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)).mean(axis=0)
        updated /= updated.sum()
        if np.abs(updated - shares).max() < _TOLERANCE:
            return np.asarray(updated, dtype=np.float64)
        shares = updated
    return shares


@dataclass(frozen=True)
class _Calibrated:
    """Posteriors calibrated on some held-out records, and how each class looks to the classifier."""

    regression: LogisticRegression
    priors: Doubles
    soft: Doubles
    hard: Doubles

    @staticmethod
    def fit(probabilities: FloatArray, labels: IntArray, n_classes: int) -> _Calibrated:
        """From ``(n, K)`` and labels ``(n,)`` of at least two classes."""
        regression = LogisticRegression(C=1.0).fit(_log_odds(probabilities), labels)
        priors = np.bincount(labels, minlength=n_classes) / len(labels)
        made = _Calibrated(regression, priors, np.eye(n_classes), np.eye(n_classes))
        posteriors = made.posteriors(probabilities)
        votes = made.votes(posteriors)
        for k in np.unique(labels):
            made.soft[k], made.hard[k] = posteriors[labels == k].mean(0), votes[labels == k].mean(0)
        return made

    def posteriors(self, probabilities: FloatArray) -> Doubles:
        """Calibrated ``(n, K)``."""
        fitted = self.regression.predict_proba(_log_odds(probabilities))
        return all_classes(fitted, self.regression.classes_, len(self.priors)).astype(np.float64)

    def votes(self, posteriors: Doubles) -> Doubles:
        """One-hot ``(n, K)`` of the most likely class were all classes as frequent."""
        balanced = np.divide(posteriors, self.priors, out=np.zeros_like(posteriors), where=self.priors > 0)
        return np.asarray(np.eye(len(self.priors))[balanced.argmax(axis=1)], dtype=np.float64)

    def estimates(self, probabilities: FloatArray) -> dict[str, Doubles]:
        """The shares of one population by every method, from its uncalibrated posteriors ``(n, K)``."""
        posteriors = self.posteriors(probabilities)
        return {
            "adjusted count": adjusted_count(self.votes(posteriors), self.hard, self.priors),
            "adjusted posteriors": adjusted_count(posteriors, self.soft, self.priors),
            "prior shift": shifted_priors(posteriors, self.priors),
        }


def _log_odds(probabilities: FloatArray) -> Doubles:
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-6))
    centered: Doubles = logs - logs.mean(axis=1, keepdims=True)
    return centered


@attacks.register("mixture")
@dataclass(frozen=True)
class MixtureAttack(Attack):
    """Class shares by adjusted counts or by prior shift, whichever finds known shares again.

    A logistic regression is trained on a part of the auxiliary set and calibrated on the rest. Half
    of that rest is then mixed to populations of known shares, as large as those asked for; the method,
    and how far its answer is drawn towards the auxiliary share, are those of least mean absolute error
    there.

    Attributes:
        target: Attribute whose shares are estimated.
        penalties: Inverse penalty strengths C that are tried.
        share: Share of the auxiliary groups kept for calibration and mixing.
        mixtures: Synthetic populations of every size.
        max_columns: Principal components kept of a wider release.
        max_cells: Bound on rows * columns * classes of one fit: how many draws are stacked.
        max_iterations: L-BFGS iterations of one fit.
        max_classes: More classes than this are refused.
    """

    kind: ClassVar[Kind] = "property"
    penalties: tuple[float, ...] = option((0.001, 0.01, 0.1, 1.0, 10.0), low=1e-8)
    share: float = option(0.4, low=0.05, high=0.8)
    mixtures: int = option(80, low=1)
    max_columns: int = option(256, low=2)
    max_cells: int = option(20_000_000, low=1000)
    max_iterations: int = option(200, low=1)
    max_classes: int = option(20, low=2)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        reason = population_refusal(view)
        if reason is not None:
            return reason
        if view.aux.n_classes.get(self.target, 0) > self.max_classes:
            return f"{view.aux.n_classes[self.target]} classes, more than the {self.max_classes} it is for"
        return attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        labels, n_classes = view.aux.labels[self.target], view.aux.n_classes[self.target]
        rng = numpy_stream(view.seed, "attack", "mixture", self.target)
        split = own_split(labels, view.aux.groups, rng, share=self.share)
        problem = AttributeProblem(self.target, labels, n_classes, split, view.aux.groups)
        bank = FeatureBank(view, max_columns=self.max_columns, name="mixture")
        draws = min(bank.draws, SCORED_DRAWS)
        held_out, victims, penalty = self._classify(problem, bank, draws, rng)
        truth = problem.validation_labels(draws)
        calibrated, mixed = self._halves(view, problem, held_out, draws, rng)
        final = _Calibrated.fit(held_out, truth, n_classes)
        known = np.bincount(labels[labels >= 0], minlength=n_classes)
        anchor = known / known.sum()
        rules = {
            size: self._rule(calibrated, *mixed, size, rng)
            for size in sorted({_rounded(len(rows)) for rows in view.populations})
        }
        shares = []
        for rows in view.populations:
            _, method, pull = rules[_rounded(len(rows))]
            estimate = final.estimates(victims[rows])[method]
            shares.append(pull * estimate + (1 - pull) * anchor)
        error, method, pull = rules[_rounded(max(len(rows) for rows in view.populations))]
        return AttackResult(
            shares=np.asarray(shares, dtype=np.float32),
            validation=-error,
            selected={"C": penalty, "method": method, "pull": pull},
            queries=bank.queries,
        )

    def _classify(
        self, problem: AttributeProblem, bank: FeatureBank, draws: int, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray, float]:
        """Posteriors of held-out draws and of the victims, and the penalty with the best held-out score."""
        held_out = bank.rows(problem.split.validation, draws)
        logits = problem.n_classes if problem.n_classes > 2 else 1
        max_rows = max(1000, self.max_cells // (bank.columns * logits))
        columns, labels = training_rows(bank, problem, problem.split.train, max_rows, rng)
        best: tuple[float, float, FloatArray, LogisticRegression] | None = None
        for penalty in self.penalties:
            model = fit_logistic(columns, labels, penalty, self.max_iterations)
            own = all_classes(model.predict_proba(held_out), model.classes_, problem.n_classes)
            score = problem.score(own)
            if best is None or score > best[0]:
                best = (score, penalty, own, model)
        assert best is not None
        _, penalty, own, model = best
        victims = all_classes(model.predict_proba(bank.victims), model.classes_, problem.n_classes)
        return own, victims, penalty

    @staticmethod
    def _halves(
        view: View, problem: AttributeProblem, held_out: FloatArray, draws: int, rng: np.random.Generator
    ) -> tuple[_Calibrated, tuple[FloatArray, IntArray]]:
        """One half of the held-out groups calibrates, the other is mixed to populations.

        Where a half would lack all classes but one, both are the whole: the choice is then optimistic.
        """
        rows, truth = problem.split.validation, problem.validation_labels(draws)
        halves = own_split(problem.labels[rows], view.aux.groups[rows], rng, share=0.5)
        sides = [np.tile(np.isin(np.arange(len(rows)), part), draws) for part in _parts(halves)]
        if min(len(np.unique(truth[side])) for side in sides) < 2:
            sides = [np.ones(len(truth), dtype=bool)] * 2
        first, second = sides
        made = _Calibrated.fit(held_out[first], truth[first], problem.n_classes)
        return made, (held_out[second], truth[second])

    def _rule(
        self,
        calibrated: _Calibrated,
        probabilities: FloatArray,
        labels: IntArray,
        size: int,
        rng: np.random.Generator,
    ) -> tuple[float, str, float]:
        """Mean absolute error, method and pull that do best on synthetic populations of ``size`` records."""
        present = np.unique(labels)
        members = {int(k): np.flatnonzero(labels == k) for k in present}
        errors: dict[tuple[str, float], list[float]] = {}
        for _ in range(self.mixtures):
            counts = rng.multinomial(size, rng.dirichlet(np.ones(len(present))))
            rows = [rng.choice(members[int(k)], count) for k, count in zip(present, counts, strict=True)]
            truth = np.zeros(len(calibrated.priors))
            truth[present] = counts / size
            for method, estimate in calibrated.estimates(probabilities[np.concatenate(rows)]).items():
                for pull in _SHRINKAGE:
                    drawn = pull * estimate + (1 - pull) * calibrated.priors
                    errors.setdefault((method, pull), []).append(float(np.abs(drawn - truth).mean()))
        means = {key: float(np.mean(values)) for key, values in errors.items()}
        method, pull = min(means, key=lambda key: means[key])
        return means[method, pull], method, pull


def _parts(split: OwnSplit) -> tuple[IntArray, IntArray]:
    return split.train, split.validation


def _rounded(size: int) -> int:
    """The power of two next to ``size``, up to a bound: populations of about one size share a rule."""
    return min(_LARGEST, 1 << round(math.log2(size)))
