"""Limits on leakage that a pipeline sets: ``ATTRIBUTE:0.55``, held against what a run's result claims.

The certificate decides where there is one: it bounds every attacker. Without one it is the upper end of the
worst attacker's interval, over test and training records and every threat model that was run, who knows task
labels included. Of AUC and balanced accuracy (identity: verification AUC, top-1) the larger counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from privhier.errors import ConfigError, ResultError
from privhier.evaluation.headline import METRIC_NAMES
from privhier.evaluation.result import AttributeLeakage, Result
from privhier.privacy.shown import claim
from privhier.registry import nearest

_KEY = "--fail-above"
_EXAMPLE = "For instance: --fail-above 'race==0:0.55'"


@dataclass(frozen=True)
class Limit:
    """The most that an attribute may leak."""

    attribute: str
    most: float


@dataclass(frozen=True)
class Checked:
    """One limit held against a result.

    Attributes:
        limit: What was asked.
        value: What the result claims, in [0, 1].
        metric: Of which score.
        certified: Whether it is a certificate, and not what attackers reached.
        source: Whose score it is.
    """

    limit: Limit
    value: float
    metric: str
    certified: bool
    source: str

    @property
    def above(self) -> bool:
        """Whether the limit is broken."""
        return self.value > self.limit.most

    def line(self) -> str:
        """What the command line prints."""
        verdict = "ABOVE" if self.above else "within"
        what = "certified" if self.certified else "worst attacker's upper interval end"
        score = f"{METRIC_NAMES[self.metric]} {claim(self.value, decimals=4)} ({self.source})"
        return f"limit {self.limit.attribute}: {what}, {score}, {verdict} {self.limit.most:g}"


def parse_limit(text: str) -> Limit:
    """``ATTRIBUTE:NUMBER``; the last colon divides, as attributes may hold some.

    Raises:
        ConfigError: No such form, no number, or one outside [0, 1].

    Example:
        >>> parse_limit("race==0:0.55"), parse_limit("bin(age, 20, 40) : .6")
        (Limit(attribute='race==0', most=0.55), Limit(attribute='bin(age, 20, 40)', most=0.6))
    """
    name, colon, number = (part.strip() for part in text.rpartition(":"))
    if not colon or not name or not number:
        raise ConfigError(key=_KEY, value=text, rule="must read ATTRIBUTE:NUMBER", remedy=_EXAMPLE)
    try:
        most = float(number)
    except ValueError as error:
        raise ConfigError(
            key=_KEY, value=text, rule=f"{number!r} is not a number", remedy=_EXAMPLE
        ) from error
    if not 0 <= most <= 1:  # nan as well
        raise ConfigError(
            key=_KEY,
            value=text,
            rule="the limit must lie in [0, 1]: it is an AUC or a balanced accuracy",
            remedy=_EXAMPLE,
        )
    return Limit(name, most)


def check_limits(result: Result, limits: Sequence[Limit]) -> list[Checked]:
    """Every limit held against the result, in order.

    Raises:
        ConfigError: The run hides no such attribute.
        ResultError: Nothing measures the attribute: neither a certificate nor an attacker.
    """
    return [_checked(result, limit) for limit in limits]


def _checked(result: Result, limit: Limit) -> Checked:
    plain = {"".join(name.split()): name for name in result.leakage}
    name = plain.get("".join(limit.attribute.split()))
    if name is None:
        raise ConfigError(
            key=_KEY,
            value=limit.attribute,
            rule="is not an attribute that this run hides",
            remedy=nearest(limit.attribute, list(result.leakage)),
        )
    leakage, known = result.leakage[name], Limit(name, limit.most)
    certificate = leakage.certified
    bounds = {
        metric: float(value)
        for metric in METRIC_NAMES
        if (value := getattr(certificate, metric, None)) is not None
    }
    if bounds:
        metric = max(bounds, key=lambda one: bounds[one])
        return Checked(known, bounds[metric], metric, True, "any attacker on one record's letters")
    found = list(_upper_ends(leakage))
    if not found:
        raise ResultError(
            key=_KEY,
            value=name,
            rule="has neither a certificate nor an attacker's score in this run",
            remedy="Name attackers for it in attacks.attribute or attacks.verification and attack again",
        )
    value, metric, source = max(found)
    return Checked(known, value, metric, False, source)


def _upper_ends(leakage: AttributeLeakage) -> Iterator[tuple[float, str, str]]:
    """Upper interval end, score's name and whose it is, of all that was run."""
    holders = {"": leakage.worst, ", task label known": leakage.worst_with_labels}
    for more, worst in holders.items():
        if worst is None:
            continue
        scores = {"test records": {metric: getattr(worst, metric) for metric in METRIC_NAMES}}
        scores["training records"] = {metric: worst.training_records.get(metric) for metric in METRIC_NAMES}
        for records, by_metric in scores.items():
            for metric, score in by_metric.items():
                if score is not None and math.isfinite(score.high):
                    yield min(max(score.high, 0.0), 1.0), metric, f"{worst.attack} on {records}{more}"
