"""A sweep as plain data: points, ranking, who breaks whom, ``frontier.json`` and who pays."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from privhier.evaluation.breakers import breakers
from privhier.evaluation.flat import attack_metrics, clean_name, headline_metrics, with_interval
from privhier.evaluation.frontier import DRAW_METHOD, Candidate, Frontier, Reference
from privhier.evaluation.headline import chance, counted, headline
from privhier.evaluation.points import INTERVAL_METHOD, Estimate, Point, estimate
from privhier.evaluation.ranking import TOLERATED, rank_families
from privhier.evaluation.result import GroupScores, Score
from privhier.evaluation.warnings import unquotable

SCHEMA = "privhier.frontier/1"
Cell = bool | int | float | str | None


def point_rows(points: Sequence[Point], fronts: Sequence[Frontier]) -> list[dict[str, Cell]]:
    """One row per point, one seed each, finished or not; every row has every column.

    Settings keep their dotted keys; scores come as ``name``, ``name_low``, ``name_high``.
    ``leakage/ATTRIBUTE/on_front`` says whether the point's setting is in the Pareto set;
    ``leakage/ATTRIBUTE/headline/counted`` is what its leakage counts as there: below guessing, guessing.
    """
    winners = {
        (front.attribute, point.id): candidate.on_front
        for front in fronts
        for candidate in front.candidates
        for point in candidate.points
    }
    rows = [_row(point, winners) for point in points]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def as_csv(rows: Sequence[Mapping[str, Cell]]) -> bytes:
    """Rows as CSV in UTF-8; what is missing is an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows: Sequence[Mapping[str, Cell]]) -> bytes:
    """Rows as Parquet; a column of mixed kinds (``none`` beside numbers is not one) becomes text."""
    import pyarrow
    import pyarrow.parquet

    columns = {name: _uniform([row[name] for row in rows]) for name in (rows[0] if rows else {})}
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def ranking_rows(fronts: Sequence[Frontier]) -> list[dict[str, Cell]]:
    """One row per bench, attribute, tolerated loss and family, the best first.

    ``unquotable`` counts those of its points none of whose numbers may be quoted (not learned).
    """
    rows: list[dict[str, Cell]] = []
    for front in fronts:
        for ranking in (rank_families(front, tolerated=lost) for lost in TOLERATED):
            for place, placed in enumerate(ranking.placed, 1):
                chosen = placed.candidate
                row: dict[str, Cell] = {"bench": front.bench, "attribute": front.attribute}
                row |= {"tolerated": ranking.tolerated, "place": place, "family": placed.family}
                row |= {"points": None if chosen is None else " ".join(p.id for p in chosen.points)}
                row |= {"unquotable": None if chosen is None else sum(map(_unquotable, chosen.points))}
                row |= {"task_lost": placed.task_lost, "wins": placed.wins, "first": placed.first}
                row |= {"above_next": placed.above_next}
                row |= _estimate("leakage", None if chosen is None else chosen.leakage)
                row |= {"leakage_counted": None if chosen is None else chosen.counted}
                rows.append(row | _estimate("excess", None if chosen is None else chosen.excess))
    return rows


def _unquotable(point: Point) -> bool:
    return point.result is not None and bool(unquotable(point.result.warnings))


def breaker_rows(fronts: Sequence[Frontier]) -> list[dict[str, Cell]]:
    """One row per bench, attribute, family and attacker: what he reads beyond the floor."""
    rows: list[dict[str, Cell]] = []
    for front in fronts:
        matrix = breakers(front)
        for broken in matrix.rows:
            for attacker, excess in broken.excess.items():
                row: dict[str, Cell] = {"bench": front.bench, "attribute": front.attribute}
                row |= {"family": broken.family, "points": " ".join(p.id for p in broken.candidate.points)}
                row |= {"within_tolerated_loss": broken.within, "attacker": attacker}
                row |= {"adaptive": attacker in matrix.adaptive, "wins": attacker == broken.winner}
                row |= {"beyond": "floor" if matrix.floored else "guessing", "metric": front.metric}
                rows.append(row | _estimate("excess", excess))
    return rows


def _estimate(name: str, found: Estimate | None) -> dict[str, Cell]:
    ends = ("value", "low", "high")
    values = [None if found is None else getattr(found, end) for end in ends]
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def frontier_json(fronts: Sequence[Frontier], *, name: str, sweep_hash: str) -> dict[str, Any]:
    """Everything that was computed, as plain data."""
    return {
        "schema": SCHEMA,
        "sweep": name,
        "sweep_hash": sweep_hash,
        "interval_method": INTERVAL_METHOD,
        "draw_method": DRAW_METHOD,
        "panels": [_panel(front) for front in fronts],
    }


@dataclass(frozen=True)
class Share:
    """What one candidate gives and takes, class by class.

    Attributes:
        name: The setting in words.
        candidate: None for a reference network.
        n: Test records per class, mean over the seeds.
        accuracy: Task to class to estimate.
        recall: Class to estimate.
    """

    name: str
    candidate: Candidate | None
    n: dict[str, int]
    accuracy: dict[str, dict[str, Estimate]]
    recall: dict[str, Estimate]


def who_pays(front: Frontier, names: Mapping[str, str]) -> list[Share]:
    """The front's settings and the references, by class of the front's attribute.

    Args:
        names: Setting (``Point.setting``) to its words.

    Returns:
        Empty where no run has numbers by group (results older than these, or identity).
    """
    shares: list[Share] = []
    for candidate in front.front:
        groups = [p.result.by_group.get(front.attribute, {}) for p in candidate.points if p.result]
        shares += _share(names[candidate.points[0].setting], candidate, groups, front.confidence)
    return shares


def reference_shares(front: Frontier, titles: Mapping[Reference, str]) -> list[Share]:
    """The same for the unprotected networks."""
    shares: list[Share] = []
    for reference, title in titles.items():
        runs: dict[tuple[int, float], dict[str, GroupScores]] = {}
        for candidate in front.candidates:
            for point in candidate.points:
                run = point.result.references.get(reference.name) if point.result else None
                if run is not None and tuple(run.release_shape) == reference.release_shape:
                    key = point.seed, run.utility_mean.auc.value
                    runs[key] = run.by_group.get(front.attribute, {})
        shares += _share(title, None, list(runs.values()), front.confidence)
    return shares


def _share(
    name: str, candidate: Candidate | None, groups: Sequence[Mapping[str, GroupScores]], confidence: float
) -> Iterable[Share]:
    groups = [group for group in groups if group]
    if not groups:
        return
    by_class: dict[str, list[GroupScores]] = {}
    for group in groups:
        for name_of_class, scores in group.items():
            by_class.setdefault(name_of_class, []).append(scores)
    tasks = dict.fromkeys(t for runs in by_class.values() for g in runs for t in g.task_accuracy)

    def mean(found: Mapping[str, list[Score | None]]) -> dict[str, Estimate]:
        known = {key: [score for score in scores if score is not None] for key, scores in found.items()}
        return {key: estimate(scores, confidence) for key, scores in known.items() if scores}

    yield Share(
        name,
        candidate,
        {c: round(sum(g.n for g in runs) / len(runs)) for c, runs in by_class.items()},
        {t: mean({c: [g.task_accuracy.get(t) for g in runs] for c, runs in by_class.items()}) for t in tasks},
        mean({c: [g.attack_recall for g in runs] for c, runs in by_class.items()}),
    )


def _row(point: Point, winners: Mapping[tuple[str, str], bool]) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "id": point.id,
        "family": point.family,
        "seed": point.seed,
        "status": point.status,
    }
    row |= {key: _plain(value) for key, value in point.settings.items()}
    row |= {"seconds": point.seconds, "error": point.error, "config_hash": point.config_hash}
    if point.result is None:
        return row
    row |= {"bench": point.bench, "unprotected": point.unprotected}
    row["warning"] = "; ".join(unquotable(point.result.warnings)) or None
    for name in ("auc", "balanced_accuracy"):
        row |= with_interval(f"utility/{name}", getattr(point.result.utility_mean, name))
    if point.result.utility_mean.cloud_gain is not None:
        row |= with_interval("utility/cloud_gain", point.result.utility_mean.cloud_gain)
    for attribute, leakage in point.result.leakage.items():
        prefix = clean_name(f"leakage/{attribute}")
        row[f"{prefix}/on_front"] = winners.get((attribute, point.id))
        top = headline(leakage)
        if top is not None:
            row |= {f"{prefix}/worst": top.attack, f"{prefix}/records": top.records}
            row[f"{prefix}/headline/counted"] = counted(top.score.value, chance(leakage, top.metric))
        row |= {f"{prefix}/{name}": value for name, value in headline_metrics(leakage).items()}
        row |= {f"{prefix}/{name}": value for name, value in attack_metrics(leakage.worst).items()}
        row[f"{prefix}/majority"] = leakage.majority
        if leakage.ceiling is not None:
            row[f"{prefix}/ceiling/auc"] = leakage.ceiling.auc
            row[f"{prefix}/ceiling/balanced_accuracy"] = leakage.ceiling.balanced_accuracy
        if leakage.raw_image_attack is not None:
            raw = attack_metrics(leakage.raw_image_attack)
            row |= {f"{prefix}/raw_image/{name}": value for name, value in raw.items()}
    for attack, scores in point.result.reconstruction.items():
        if scores.ssim is not None:
            row |= with_interval(f"reconstruction/{attack}/ssim", scores.ssim)
    for guarantee in point.result.guarantees:
        if guarantee.measure == "maximal_leakage":
            row["maximal_leakage_nats"] = guarantee.nats
            continue
        row[f"epsilon/{guarantee.name}"] = guarantee.epsilon
        row[f"allows/{guarantee.name}"] = guarantee.allows
    row["uplink/bytes_per_record"] = point.result.uplink.bytes_per_record
    row["uplink/payload_bytes_per_record"] = point.result.uplink.payload_bytes_per_record
    return row


def _plain(value: Any) -> Cell:
    return value if isinstance(value, Cell) else str(value)


def _uniform(column: list[Cell]) -> list[Cell]:
    kinds = {type(value) for value in column if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in column]
    return [None if v is None else str(v) for v in column] if len(kinds) > 1 else column


def _panel(front: Frontier) -> dict[str, Any]:
    return {
        "attribute": front.attribute,
        "bench": front.bench,
        "metric": front.metric,
        "confidence": front.confidence,
        "reference_point": {"utility": front.reference_point[0], "leakage": front.reference_point[1]},
        "draws": front.draws,
        "chance": front.chance,
        "majority": front.majority,
        "raw_image": None if front.raw_image is None else asdict(front.raw_image),
        "floor": None if front.floor is None else asdict(front.floor),
        "label_limit": [{"leakage": leaked, "utility": useful} for leaked, useful in front.label_limit],
        "references": [asdict(reference) for reference in front.references],
        "hypervolume": asdict(front.volume),
        "families": {name: asdict(volume) for name, volume in front.families.items()},
        "comparisons": [asdict(comparison) for comparison in front.comparisons],
        "candidates": [
            {
                "points": [point.id for point in c.points],
                "seeds": [point.seed for point in c.points],
                "family": c.family,
                "settings": {key: _plain(value) for key, value in c.points[0].settings.items()},
                "utility": asdict(c.utility),
                "leakage": asdict(c.leakage),
                "leakage_counted": c.counted,
                "excess": None if c.excess is None else asdict(c.excess),
                "ceiling": c.ceiling,
                "certified": c.certified,
                "epsilon": c.epsilon,
                "delta": c.delta,
                "allows": c.allows,
                "cloud_gain": None if c.cloud_gain is None else asdict(c.cloud_gain),
                "unprotected": c.unprotected,
                "on_front": c.on_front,
                "front_share": c.front_share,
            }
            for c in front.candidates
        ],
    }
