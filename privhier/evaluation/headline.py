"""The one score an attribute is judged by, and the lines it is judged against.

Whoever shows how much of an attribute leaks asks ``headline``: result pages, the command line, MLflow, sweep
tables, frontiers, comparisons, searches and plans then name the same number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from privhier.evaluation.leakage_parts import Certified, Excess, Records
from privhier.evaluation.leakage_parts import Headline as Headline
from privhier.evaluation.leakage_parts import Metric as Metric
from privhier.evaluation.result import AttackScores, AttributeLeakage, Score, WorstAttack

METRIC_NAMES: dict[str, str] = {
    "auc": "AUC",
    "matched_verification_auc": "matched verification AUC",
    "verification_auc": "verification AUC",
    "top1": "top-1 accuracy",
    "balanced_accuracy": "balanced accuracy",
}
ORDER: tuple[Metric, ...] = (
    "auc",
    "matched_verification_auc",
    "verification_auc",
    "top1",
    "balanced_accuracy",
)
"""Which score leads, if there are several."""
AREAS = ("auc", "matched_verification_auc", "verification_auc")
GUESSING = 0.5
"""Of any of them."""
SAYS_NOTHING = 0.999
"""A bound above this is printed as 1.000, since claims round up."""
_WITH_LABELS = "curious_cloud_labels"


def leading_metric(worst: WorstAttack) -> Metric | None:
    """The score an attribute is judged by: AUC, else (matched) verification AUC, top-1, balanced accuracy."""
    return next((metric for metric in ORDER if getattr(worst, metric) is not None), None)


def headline(leakage: AttributeLeakage, metric: Metric | None = None) -> Headline | None:
    """The worst over test and training records and over all threat models that were run.

    Args:
        leakage: Of one attribute.
        metric: The score that is asked for; the leading one if it is left out.

    Returns:
        As it was scored; for another metric, or where the result is older than headlines, the highest of
        the scores that are there, with that one's own interval. None where there is no such score.
    """
    metric = metric or leading_metric(leakage.worst)
    if metric is None:
        return None
    if leakage.headline is not None and leakage.headline.metric == metric:
        return leakage.headline
    candidates = [
        (score.value, records, attackers, score)
        for attackers in (leakage.worst, leakage.worst_with_labels)
        if attackers is not None
        for records, score in _on(attackers, metric)
    ]
    if not candidates:
        return None
    _, records, attackers, score = max(candidates, key=lambda one: one[0])
    attack, threat_model = _by(leakage, attackers, metric, records)
    blind = attackers is leakage.worst
    return Headline(
        metric=metric,
        records=records,
        attack=attack,
        threat_model=threat_model,
        score=score,
        floor=dict(_on(leakage.floor, metric)).get(records),
        excess=dict(_on(leakage.excess, metric)).get(records) if blind else None,
    )


def worst_of(worst: WorstAttack | None, metric: Metric | None) -> Score | None:
    """The higher of the scores on test and on training records: what a headline is compared with."""
    scores = [] if metric is None else [score for _, score in _on(worst, metric)]
    return max(scores, key=lambda score: score.value, default=None)


def chance(leakage: AttributeLeakage, metric: Metric) -> float:
    """What an attacker who knows nothing reaches: 0.5 for an AUC, the largest class for top-1, else 1/K."""
    if metric in AREAS:
        return GUESSING
    return leakage.majority if metric == "top1" else 1 / max(len(leakage.classes), 1)


def counted(score: float, guessing: float) -> float:
    """What a leakage counts as wherever leakages are put in order: below guessing is no better than guessing.

    An attacker chose his answers' sign before he met a victim; a score of 0.414 is bad luck of his, or of few
    victims, and no virtue of a defense.

    Example:
        >>> counted(0.414, 0.5), counted(0.62, 0.5)
        (0.5, 0.62)
    """
    return max(score, guessing)


def ceiling_value(leakage: AttributeLeakage, metric: Metric) -> float | None:
    """The proven ceiling of ``metric``, where there is one that binds the headline.

    It binds whoever uses a record's releases and nothing else that depends on it: none who reads task labels.
    """
    if leakage.ceiling is None or metric not in ("auc", "balanced_accuracy"):
        return None
    top = headline(leakage, metric)
    if top is not None and top.threat_model == _WITH_LABELS:
        return None
    value: float | None = getattr(leakage.ceiling, metric)
    return value


def certified_value(leakage: AttributeLeakage, metric: Metric) -> float | None:
    """The most that any attacker reaches in ``metric`` on test records, where it is certified.

    It binds whoever holds a record's letters and nothing else of it; of pairs, those that agree in the task
    labels. Of training records it says nothing.
    """
    return None if leakage.certified is None else certified_bounds(leakage.certified).get(metric)


def certified_bounds(certified: Certified) -> dict[Metric, float]:
    """What is certified, by score; those that do not apply are left out."""
    named: dict[Metric, float | None] = {
        "auc": certified.auc,
        "balanced_accuracy": certified.balanced_accuracy,
        "matched_verification_auc": certified.verification_auc,
        "top1": certified.top1,
    }
    return {metric: bound for metric, bound in named.items() if bound is not None}


def telling(bound: float | None) -> float | None:
    """A ceiling or a certificate that says something; None for one that is 1 as printed (three decimals).

    Scores end at 1 by themselves: a line there, or a sentence about it, would pass for a finding.

    Example:
        >>> telling(0.873), telling(0.9997), telling(1.0)
        (0.873, None, None)
    """
    return None if bound is None or not bound <= SAYS_NOTHING else bound


def drawable(scores: WorstAttack | AttackScores | None, metric: Metric) -> Score | None:
    """The score on test records that a figure can show: there is one, and it is finite."""
    score: Score | None = getattr(scores, metric, None)
    return score if score is not None and finite(score) else None


def finite(score: Score) -> bool:
    """Whether value and interval are finite."""
    return all(math.isfinite(number) for number in (score.value, score.low, score.high))


def _on(
    scores: WorstAttack | AttackScores | Excess | None, metric: Metric
) -> Iterator[tuple[Records, Score]]:
    """The finite scores on test and on training records."""
    if scores is None:
        return
    test: Score | None = getattr(scores, metric)
    training = scores.training_records.get(metric)
    if test is not None and finite(test):
        yield "test", test
    if training is not None and finite(training):
        yield "training", training


def _by(
    leakage: AttributeLeakage, attackers: WorstAttack, metric: Metric, records: Records
) -> tuple[str, str]:
    """Who reaches the worst on these records, and the threat model."""
    among = leakage.attacks if attackers is leakage.worst else leakage.attacks_with_labels
    scored = [(score.value, attack) for attack in among for on, score in _on(attack, metric) if on == records]
    if not scored:
        return attackers.attack, "curious_cloud" if attackers is leakage.worst else _WITH_LABELS
    best = max(scored, key=lambda one: one[0])[1]
    return best.attack, best.threat_model
