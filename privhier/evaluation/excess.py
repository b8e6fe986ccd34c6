"""From attackers' curves to the headline and to what is read beyond the floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from privhier.evaluation.headline import leading_metric
from privhier.evaluation.leakage_parts import Excess, Headline, Records
from privhier.evaluation.score import Score
from privhier.evaluation.scores import Curve, Scored, as_score
from privhier.metrics.intervals import excess_interval, max_interval

PREFIX: dict[Records, str] = {"test": "", "training": "training/"}
"""What a score's name begins with, by the records it is on."""


def excess_of(attackers: Scored, floor: Scored) -> Excess:
    """Every score of the worst attacker minus the floor's, where both have it.

    Args:
        attackers: On the releases.
        floor: On the true task labels of the same victims, under the same resamples.
    """
    found = {
        name: difference(_column([attackers], name), _column([floor], name), n, attackers.confidence)
        for name, n in attackers.n.items()
    }
    known = {name: score for name, score in found.items() if score is not None}
    training = PREFIX["training"]
    return Excess(
        **{name: score for name, score in known.items() if "/" not in name},
        training_records={
            name.removeprefix(training): score for name, score in known.items() if name.startswith(training)
        },
    )


def headline_of(
    attackers: Sequence[Scored], threat_models: Mapping[str, str], floor: Scored | None
) -> Headline | None:
    """The worst of all attackers of all threat models, on test and on training records.

    Args:
        attackers: Those of every threat model that was run, the ones judged by ``worst`` first; their
            leading score is the headline's.
        threat_models: Attack to its threat model.
        floor: As for ``excess_of``.

    Returns:
        None where no attacker has a score.
    """
    metric = leading_metric(attackers[0].worst)
    if metric is None:
        return None
    entries: list[tuple[Records, str, Curve]] = [
        (records, attack, curves[f"{prefix}{metric}"])
        for records, prefix in PREFIX.items()
        for scored in attackers
        for attack, curves in scored.curves.items()
        if f"{prefix}{metric}" in curves and np.isfinite(curves[f"{prefix}{metric}"].value)
    ]
    if not entries:
        return None
    confidence = attackers[0].confidence
    values = np.array([curve.value for _, _, curve in entries])
    best, interval = max_interval(values, np.stack([c.resampled for _, _, c in entries]), confidence)
    records, attack, _ = entries[best]
    name = f"{PREFIX[records]}{metric}"
    n = attackers[0].n[name]
    own = [] if floor is None else _column([floor], name)
    return Headline(
        metric=metric,
        records=records,
        attack=attack,
        threat_model=threat_models.get(attack, "curious_cloud"),
        score=as_score(interval, n),
        floor=maximum(own, n, confidence),
        excess=difference(_column(attackers, name), own, n, confidence),
    )


def maximum(curves: Sequence[Curve], n: int, confidence: float) -> Score | None:
    """The largest value, its interval that of the maximum; None without any."""
    finite = [curve for curve in curves if np.isfinite(curve.value)]
    if not finite:
        return None
    values, resampled = np.array([curve.value for curve in finite]), [curve.resampled for curve in finite]
    return as_score(max_interval(values, np.stack(resampled), confidence)[1], n)


def difference(worst: Sequence[Curve], floor: Sequence[Curve], n: int, confidence: float) -> Score | None:
    """The largest of ``worst`` minus the largest of ``floor``, paired; None where either has no value."""
    sides = [[curve for curve in side if np.isfinite(curve.value)] for side in (worst, floor)]
    if not all(sides):
        return None
    values = [np.array([curve.value for curve in side]) for side in sides]
    resampled = [np.stack([curve.resampled for curve in side]) for side in sides]
    return as_score(excess_interval(values[0], resampled[0], values[1], resampled[1], confidence), n)


def _column(attackers: Sequence[Scored], name: str) -> list[Curve]:
    return [curves[name] for scored in attackers for curves in scored.curves.values() if name in curves]
