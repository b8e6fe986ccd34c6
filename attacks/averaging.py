"""Attribute attacker on repeated releases: single releases are classified, their verdicts averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.column_scores import all_classes, fit_logistic
from privhier.attacks.parts.features import FeatureBank
from privhier.attacks.parts.fitting import FitPlan, class_probabilities, fit, take
from privhier.attacks.parts.nets import perceptron
from privhier.attacks.parts.selection import SCORED_DRAWS, AttributeProblem, pose_attribute
from privhier.attacks.refusals import attribute_refusal, label_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, numpy_stream, torch_stream

_FLOOR = 1e-6
"""Least posterior of a class in one release: no single release may rule a class out."""


def single_releases(view: View) -> View:
    """The view with every release as a record of its own: row ``i * T + t`` is release t of record i."""
    aux, repeats = view.aux, view.releases.shape[1]

    def one_by_one(releases: FloatArray) -> FloatArray:
        return releases.reshape(-1, 1, *releases.shape[2:])

    return replace(
        view,
        releases=one_by_one(view.releases),
        aux=replace(
            aux,
            labels={},
            groups=np.repeat(aux.groups, repeats),
            releases=lambda draw: one_by_one(aux.releases(draw)),
        ),
    )


def average_log(probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    """``(n, T, K)`` to float32 ``(n, K)``: the product of ``probabilities ** weights``, normalized.

    Equal weights 1/T give the geometric mean: the ranking of a naive Bayes product of posteriors,
    without its overconfidence where releases share their features.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), _FLOOR))
    summed = np.tensordot(logs, weights.astype(np.float64), axes=(1, 0))
    rows = np.exp(summed - summed.max(axis=1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=1, keepdims=True), dtype=np.float32)


@dataclass(frozen=True)
class _Candidate:
    """Posteriors of single releases: held-out ``(draws * n_validation, T, K)``, victims ``(n, T, K)``."""

    name: str
    held_out: FloatArray
    victims: FloatArray


@attacks.register("averaging")
@dataclass(frozen=True)
class AveragingAttack(Attack):
    """Class log-probabilities of single releases, averaged over a record's T releases.

    Base learners: logistic regression, one for all T or one for each t, and a perceptron that is told
    t. Weights of the releases: equal, or by each release's own score; all chosen on the attacker's own
    validation split. A classifier of one release has T times the training rows and a T-th of the
    columns of one that sees all T side by side.

    Attributes:
        target: Attribute under attack.
        penalties: Inverse penalty strengths C of the logistic regressions.
        width: Hidden width of the perceptron.
        dropout: Its dropout probability.
        learning_rate: Its peak rate of AdamW.
        epochs: Its most epochs, each on one draw of every release; 0 leaves it out.
        patience: Epochs without a better own-validation score before it stops.
        batch: Releases a step.
        max_columns: Principal components kept of a wider release.
        max_cells: Bound on rows * columns * classes of one logistic fit: how many draws are stacked.
        max_steps: Bound on the perceptron's training steps; epochs are cut to it.
        max_iterations: L-BFGS iterations of one logistic fit.
    """

    kind: ClassVar[Kind] = "attribute"
    penalties: tuple[float, ...] = option((0.01, 0.3, 10.0), low=1e-8)
    width: int = option(128, low=2)
    dropout: float = option(0.3, low=0.0, high=0.95)
    learning_rate: float = option(2e-3, low=1e-7)
    epochs: int = option(24, low=0)
    patience: int = option(8, low=1)
    batch: int = option(128, low=2)
    max_columns: int = option(256, low=2)
    max_cells: int = option(10_000_000, low=1000)
    max_steps: int = option(4000, low=1)
    max_iterations: int = option(200, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        if view.releases.shape[1] == 1:
            return "one release of each record: there is nothing to average, the plain attackers do the same"
        return label_refusal(view) or attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, "averaging")
        bank = FeatureBank(single_releases(view), max_columns=self.max_columns, name="averaging")
        candidates = list(self._logistic(view, problem, bank))
        if self.epochs:
            candidates.append(self._perceptron(view, problem, bank))
        weighted = [
            (weights_name, candidate, weights)
            for candidate in candidates
            for weights_name, weights in self._weights(problem, candidate)
        ]
        judged = [
            (problem.score(average_log(candidate.held_out, weights)), weights_name, candidate, weights)
            for weights_name, candidate, weights in weighted
        ]
        _, weights_name, candidate, weights = max(judged, key=lambda entry: entry[0])
        return problem.result(
            validation=average_log(candidate.held_out, weights),
            victims=average_log(candidate.victims, weights),
            selected={"learner": candidate.name, "weights": weights_name},
            queries=bank.queries,
        )

    @staticmethod
    def _weights(problem: AttributeProblem, candidate: _Candidate) -> Iterator[tuple[str, FloatArray]]:
        repeats = candidate.held_out.shape[1]
        yield "equal", np.full(repeats, 1 / repeats, dtype=np.float32)
        # Half is chance for AUCs; top-1 has a lower one, which only makes these weights more equal.
        chance = 0.0 if problem.top1 else 0.5
        gains = np.array([problem.score(candidate.held_out[:, t]) - chance for t in range(repeats)])
        gains = np.maximum(gains, 1e-3)
        yield "by score", np.asarray(gains / gains.sum(), dtype=np.float32)

    def _logistic(self, view: View, problem: AttributeProblem, bank: FeatureBank) -> Iterator[_Candidate]:
        repeats = view.releases.shape[1]
        rng = numpy_stream(view.seed, "attack", "averaging", self.target)
        train, logits = problem.split.train, problem.n_classes if problem.n_classes > 2 else 1
        max_rows = max(1000, self.max_cells // (bank.columns * logits))
        draws = int(np.clip(max_rows // (len(train) * repeats), 1, bank.draws))
        limit = max(2, max_rows // repeats)
        chosen = np.sort(rng.choice(train, limit, replace=False)) if len(train) > limit else train
        columns = _by_release(bank, chosen, draws, repeats)
        labels = np.tile(problem.labels[chosen], draws)
        held_out = _by_release(bank, problem.split.validation, min(bank.draws, SCORED_DRAWS), repeats)
        victims = bank.victims.reshape(-1, repeats, bank.columns)
        for penalty in self.penalties:
            together = fit_logistic(
                columns.reshape(-1, bank.columns), np.repeat(labels, repeats), penalty, self.max_iterations
            )
            apart = [
                fit_logistic(columns[:, t], labels, penalty, self.max_iterations) for t in range(repeats)
            ]
            for name, models in (("one for all releases", [together] * repeats), ("one a release", apart)):
                yield _Candidate(
                    f"logistic regression, {name}, C {penalty:g}",
                    _posteriors(models, held_out, problem.n_classes),
                    _posteriors(models, victims, problem.n_classes),
                )

    def _perceptron(self, view: View, problem: AttributeProblem, bank: FeatureBank) -> _Candidate:
        repeats, train = view.releases.shape[1], problem.split.train
        rows = (train[:, None] * repeats + np.arange(repeats)).ravel()
        labels = torch.from_numpy(np.repeat(problem.labels[train], repeats))
        which = torch.eye(repeats, device=view.device)
        steps = max(1, len(rows) // self.batch)
        epochs = max(1, min(self.epochs, self.max_steps // steps))
        held_out = _by_release(bank, problem.split.validation, min(bank.draws, SCORED_DRAWS), repeats)

        with isolated_rng(view.seed, "attack", "averaging", self.target, "perceptron"):
            network = perceptron(bank.columns + repeats, self.width, problem.n_classes, self.dropout)
            network.to(view.device)

            def loss(epoch: int, positions: Tensor) -> Tensor:
                x = take(bank.draw(epoch), rows[positions.numpy()], view.device)
                told = torch.cat([x, which[positions.to(view.device) % repeats]], dim=1)
                return nn.functional.cross_entropy(network(told), labels[positions].to(view.device))

            def posteriors(columns: FloatArray) -> FloatArray:
                told = np.broadcast_to(np.eye(repeats, dtype=np.float32), (len(columns), repeats, repeats))
                flat = np.concatenate([columns, told], axis=2).reshape(-1, bank.columns + repeats)
                return class_probabilities(network, flat, view.device).reshape(len(columns), repeats, -1)

            def score() -> float:
                return problem.score(average_log(posteriors(held_out), np.full(repeats, 1 / repeats)))

            _, epoch = fit(
                network,
                FitPlan(epochs, self.batch, self.learning_rate, 0.01, self.patience),
                records=len(rows),
                loss=loss,
                score=score,
                generator=torch_stream(view.seed, "attack", "averaging", self.target, "order"),
            )
            victims = posteriors(bank.victims.reshape(-1, repeats, bank.columns))
            name = f"perceptron, epoch {epoch} of {epochs}"
            return _Candidate(name, posteriors(held_out), victims)


def _by_release(bank: FeatureBank, records: IntArray, draws: int, repeats: int) -> FloatArray:
    """The first ``draws`` draws of ``records``, stacked: float32 ``(draws * len(records), T, q)``."""
    each = [bank.draw(k).reshape(-1, repeats, bank.columns)[records] for k in range(draws)]
    return np.concatenate(each)


def _posteriors(models: list[LogisticRegression], columns: FloatArray, n_classes: int) -> FloatArray:
    """``(n, T, q)`` to ``(n, T, K)``, release t by model t."""
    each = [
        all_classes(model.predict_proba(columns[:, t]), model.classes_, n_classes)
        for t, model in enumerate(models)
    ]
    return np.stack(each, axis=1)
