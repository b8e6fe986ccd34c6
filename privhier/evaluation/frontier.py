"""The privacy-utility frontier of a sweep: Pareto set, hypervolume and families against each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from privhier.errors import ResultError
from privhier.evaluation.candidate import Candidate as Candidate
from privhier.evaluation.draws import DRAW_METHOD as DRAW_METHOD
from privhier.evaluation.draws import DRAWS, Draws, drawn_points
from privhier.evaluation.headline import (
    METRIC_NAMES,
    ORDER,
    Headline,
    Metric,
    ceiling_value,
    certified_value,
    chance,
    counted,
    headline,
    worst_of,
)
from privhier.evaluation.lines import floor_line, label_line
from privhier.evaluation.points import Estimate, Point, estimate, group_by_setting
from privhier.evaluation.result import AttributeLeakage, ReferenceRun, Result, Score
from privhier.metrics.intervals import percentile_interval
from privhier.metrics.pareto import additive_epsilon, coverage, hypervolume, pareto_mask
from privhier.privacy.guarantees import OWN_RELEASES

REFERENCE_POINT = (0.5, 1.0)
"""(utility, leakage) of the hypervolume: a cloud that guesses, an attacker who knows."""


@dataclass(frozen=True)
class Reference:
    """An unprotected network trained beside the points of one release shape."""

    name: str
    release_shape: tuple[int, ...]
    utility: Estimate
    leakage: Estimate


@dataclass(frozen=True)
class Volume:
    """A hypervolume with its interval; ``optimism`` is by how much noise flatters it on average."""

    value: float
    low: float
    high: float
    optimism: float


@dataclass(frozen=True)
class Comparison:
    """Family ``a`` against family ``b``.

    Attributes:
        share_larger: Share of the draws in which a's hypervolume is larger (ties count one half).
        share_larger_corrected: The same after each family's optimism is reflected out, so that a family is
            not favored for having been tried more often.
        share_covers: Share of the draws in which a matches or beats every point of b that counts.
        additive_epsilon: How far a must be shifted to cover b; at most 0: a dominates b as measured.
        coverage: Share of b's points that a matches or beats as measured.
    """

    a: str
    b: str
    share_larger: float
    share_larger_corrected: float
    share_covers: float
    additive_epsilon: float
    coverage: float


@dataclass(frozen=True)
class Frontier:
    """One data set, its tasks and one sensitive attribute; ``families`` and ``candidates`` in order.

    Front, volumes and comparisons count a leakage below guessing (``chance``) as guessing.
    ``floor`` is what the true task labels alone say of it, ``label_limit`` the best trade of releases that
    are functions of these labels: ``(leakage, utility)`` with leakage rising.
    """

    attribute: str
    bench: str
    metric: Metric
    chance: float
    majority: float
    raw_image: Estimate | None
    references: tuple[Reference, ...]
    candidates: tuple[Candidate, ...]
    volume: Volume
    families: dict[str, Volume]
    comparisons: tuple[Comparison, ...]
    confidence: float
    reference_point: tuple[float, float] = REFERENCE_POINT
    draws: int = DRAWS
    floor: Estimate | None = None
    label_limit: tuple[tuple[float, float], ...] = ()

    @property
    def metric_name(self) -> str:
        """The leakage score in words."""
        return METRIC_NAMES[self.metric]

    @property
    def front(self) -> list[Candidate]:
        """The Pareto set, most useful first."""
        return sorted((c for c in self.candidates if c.on_front), key=lambda c: -c.utility.value)


def panels(points: Iterable[Point]) -> list[tuple[str, str]]:
    """Every ``(bench, attribute)`` that has a finished, scored point; in order of appearance."""
    found: dict[tuple[str, str], None] = {}
    for point in points:
        for attribute, leakage in point.result.leakage.items() if point.result else ():
            if headline(leakage) is not None:
                found[point.bench, attribute] = None
    return list(found)


def frontier(points: Iterable[Point], attribute: str, bench: str | None = None) -> Frontier:
    """The frontier of ``attribute`` over the finished points of one bench (data set and tasks).

    Raises:
        ResultError: No finished point scores the attribute, or the points are of several benches and
            ``bench`` does not say which; or their intervals have different confidences.
    """
    points = list(points)
    scored = [point for point in points if _leakage(point, attribute) is not None]
    benches = list(dict.fromkeys(point.bench for point in scored))
    if bench is None and len(benches) > 1:
        raise ResultError(
            key="bench",
            value=benches,
            rule="holds several data sets or tasks, whose points cannot be compared",
            remedy="Say which one: frontier(points, attribute, bench)",
        )
    chosen = [point for point in scored if point.bench == (bench if bench is not None else point.bench)]
    if not chosen:
        raise ResultError(
            key="attribute",
            value=attribute,
            rule="is scored by no finished point",
            remedy=f"Known: {sorted({name for _, name in panels(points)})}",
        )
    metric, confidence = _metric(chosen, attribute), chosen[0].confidence
    if any(point.confidence != confidence for point in chosen):
        raise ResultError(
            key="evaluation.confidence",
            value=sorted({point.confidence for point in chosen}),
            rule="must be the same for all points of a frontier",
            remedy="Do not sweep over evaluation.confidence",
        )
    groups = group_by_setting(chosen)
    utility = [estimate([_result(p).utility_mean.auc for p in group], confidence) for group in groups]
    leakage = [estimate([_top(p, attribute, metric).score for p in g], confidence) for g in groups]
    leak = _known(chosen[0], attribute)
    guessing = chance(leak, metric)
    u, v = _centers(utility, leakage, guessing)
    draws_u, draws_v = drawn_points(
        utility, leakage, confidence, "frontier", chosen[0].bench, attribute, guessing=guessing
    )
    families: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        families.setdefault(group[0].family, []).append(index)
    on_front, shares = pareto_mask(u, v), pareto_mask(draws_u, draws_v).mean(axis=0)
    return Frontier(
        attribute=attribute,
        bench=chosen[0].bench,
        metric=metric,
        chance=guessing,
        majority=float(np.mean([_known(p, attribute).majority for p in chosen])),
        raw_image=_raw_image(chosen, attribute, metric, confidence),
        references=tuple(_references(chosen, attribute, metric, confidence)),
        candidates=tuple(
            Candidate(
                group,
                utility[i],
                leakage[i],
                _highest([ceiling_value(_known(p, attribute), metric) for p in group]),
                _own_guarantee(group, "epsilon"),
                bool(on_front[i]),
                float(shares[i]),
                _excess(group, attribute, metric, confidence),
                _own_guarantee(group, "delta"),
                _own_guarantee(group, "allows"),
                _gain(group, confidence),
                _highest([certified_value(_known(p, attribute), metric) for p in group]),
                guessing,
            )
            for i, group in enumerate(groups)
        ),
        volume=_volume(u, v, draws_u, draws_v, confidence),
        families={
            name: _volume(u[at], v[at], draws_u[:, at], draws_v[:, at], confidence)
            for name, at in families.items()
        },
        comparisons=tuple(_compare(u, v, draws_u, draws_v, families)),
        confidence=confidence,
        floor=floor_line(chosen, attribute, metric, confidence),
        label_limit=label_line(chosen, attribute, metric),
    )


def _leakage(point: Point, attribute: str) -> AttributeLeakage | None:
    found = point.result.leakage.get(attribute) if point.result is not None else None
    return found if found is not None and headline(found) is not None else None


def _known(point: Point, attribute: str) -> AttributeLeakage:
    return _result(point).leakage[attribute]


def _result(point: Point) -> Result:
    if point.result is None:
        raise TypeError(f"point {point.id} is not finished")
    return point.result


def _metric(points: Sequence[Point], attribute: str) -> Metric:
    """The leading score of the first point that all points have."""
    for metric in ORDER:
        if all(headline(_known(p, attribute), metric) is not None for p in points):
            return metric
    raise ResultError(
        key="leakage",
        value=attribute,
        rule="is scored differently by different points of the sweep",
        remedy="Do not sweep over attackers that leave an attribute with another kind of score",
    )


def _top(point: Point, attribute: str, metric: Metric) -> Headline:
    top = headline(_known(point, attribute), metric)
    if top is None:
        raise TypeError(f"point {point.id} has no {metric} of {attribute}")
    return top


def _excess(points: Sequence[Point], attribute: str, metric: Metric, confidence: float) -> Estimate | None:
    """None if one of the seeds has none."""
    values = [_top(point, attribute, metric).excess for point in points]
    known = [value for value in values if value is not None]
    return estimate(known, confidence, least=-1.0) if len(known) == len(values) else None


def _centers(
    utility: Sequence[Estimate], leakage: Sequence[Estimate], guessing: float
) -> tuple[Draws, Draws]:
    return np.array([e.value for e in utility]), np.array([counted(e.value, guessing) for e in leakage])


def _volume(u: Draws, v: Draws, draws_u: Draws, draws_v: Draws, confidence: float) -> Volume:
    value = float(hypervolume(u, v, REFERENCE_POINT))
    drawn = hypervolume(draws_u, draws_v, REFERENCE_POINT)
    ends = [percentile_interval(value, d, confidence) for d in (drawn, np.maximum(2 * value - drawn, 0.0))]
    low, high = min(end.low for end in ends), max(end.high for end in ends)
    return Volume(value, low, high, float(drawn.mean()) - value)


def _compare(
    u: Draws, v: Draws, draws_u: Draws, draws_v: Draws, families: dict[str, list[int]]
) -> Iterable[Comparison]:
    r = REFERENCE_POINT
    drawn = {name: hypervolume(draws_u[:, at], draws_v[:, at], r) for name, at in families.items()}
    value = {name: float(hypervolume(u[at], v[at], r)) for name, at in families.items()}
    for pair in combinations(families, 2):
        both = families[pair[0]] + families[pair[1]]
        union = hypervolume(draws_u[:, both], draws_v[:, both], r)
        for a, b in (pair, pair[::-1]):
            at_a, at_b = families[a], families[b]
            plain = drawn[a] - drawn[b]
            yield Comparison(
                a,
                b,
                share_larger=_share(plain),
                share_larger_corrected=_share(2 * (value[a] - value[b]) - plain),
                # b adds nothing to a's volume exactly if a covers b (inside the reference box).
                share_covers=float(np.mean(union - drawn[a] <= 1e-12)),
                additive_epsilon=additive_epsilon(u[at_a], v[at_a], u[at_b], v[at_b]),
                coverage=coverage(u[at_a], v[at_a], u[at_b], v[at_b]),
            )


def _share(difference: Draws) -> float:
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _highest(values: Sequence[float | None]) -> float | None:
    """The highest of the seeds' bounds; None if one of them has none."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _own_guarantee(points: Sequence[Point], field: str) -> float | None:
    """Of one record's own releases, the same statement for every point; None if one seed has none."""
    values = [
        next((getattr(row, field) for row in _result(point).guarantees if row.name == OWN_RELEASES), None)
        for point in points
    ]
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _gain(points: Sequence[Point], confidence: float) -> Estimate | None:
    """Over the seeds; None if one of them does not know."""
    gains = [_result(point).utility_mean.cloud_gain for point in points]
    known = [gain for gain in gains if gain is not None]
    return estimate(known, confidence, least=-1.0) if len(known) == len(gains) else None


def _raw_image(points: Sequence[Point], attribute: str, metric: Metric, confidence: float) -> Estimate | None:
    """Over the seeds; points that share a raw-image attack count once."""
    by_seed: dict[tuple[int, float], Score] = {}
    for point in points:
        score = worst_of(_known(point, attribute).raw_image_attack, metric)
        if score is not None:
            by_seed[point.seed, score.value] = score
    return estimate(list(by_seed.values()), confidence) if by_seed else None


def _references(
    points: Sequence[Point], attribute: str, metric: Metric, confidence: float
) -> Iterable[Reference]:
    """One per reference and release shape; points that share a reference network count once."""
    runs: dict[tuple[str, tuple[int, ...]], dict[tuple[int, float, float], tuple[ReferenceRun, Score]]] = {}
    for point in points:
        for name, run in _result(point).references.items():
            top = headline(run.leakage[attribute], metric) if attribute in run.leakage else None
            if top is not None:
                key = point.seed, run.utility_mean.auc.value, top.score.value
                runs.setdefault((name, tuple(run.release_shape)), {})[key] = run, top.score
    for (name, shape), found in runs.items():
        yield Reference(
            name,
            shape,
            estimate([run.utility_mean.auc for run, _ in found.values()], confidence),
            estimate([score for _, score in found.values()], confidence),
        )
