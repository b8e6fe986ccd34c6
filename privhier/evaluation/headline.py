"""The one score an attribute is judged by, and the lines it is judged against."""

from __future__ import annotations

import math
from typing import Literal

from privhier.evaluation.result import AttackScores, AttributeLeakage, Score, WorstAttack

Metric = Literal["auc", "verification_auc", "top1", "balanced_accuracy"]
METRIC_NAMES: dict[str, str] = {
    "auc": "AUC",
    "verification_auc": "verification AUC",
    "top1": "top-1 accuracy",
    "balanced_accuracy": "balanced accuracy",
}


def leading_metric(worst: WorstAttack) -> Metric | None:
    """The score an attribute is judged by: AUC, else verification AUC, top-1, balanced accuracy."""
    order: tuple[Metric, ...] = ("auc", "verification_auc", "top1", "balanced_accuracy")
    return next((metric for metric in order if getattr(worst, metric) is not None), None)


def chance(leakage: AttributeLeakage, metric: Metric) -> float:
    """What an attacker who knows nothing reaches: 0.5 for an AUC, the largest class for top-1, else 1/K."""
    if metric in ("auc", "verification_auc"):
        return 0.5
    return leakage.majority if metric == "top1" else 1 / max(len(leakage.classes), 1)


def ceiling_value(leakage: AttributeLeakage, metric: Metric) -> float | None:
    """The proven ceiling of ``metric``, where there is one."""
    if leakage.ceiling is None or metric not in ("auc", "balanced_accuracy"):
        return None
    value: float | None = getattr(leakage.ceiling, metric)
    return value


def drawable(scores: WorstAttack | AttackScores | None, metric: Metric) -> Score | None:
    """The score that a figure can show: there is one, and it is finite."""
    score: Score | None = getattr(scores, metric, None)
    return score if score is not None and finite(score) else None


def finite(score: Score) -> bool:
    """Whether value and interval are finite."""
    return all(math.isfinite(number) for number in (score.value, score.low, score.high))
