"""What a frontier's points are compared with besides guessing: the labels' floor, the best labels can do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privhier.evaluation.headline import Metric, drawable
from privhier.evaluation.points import Estimate, Point, estimate
from privhier.evaluation.result import Score
from privhier.metrics.label_auc import label_limit


def floor_line(points: Sequence[Point], attribute: str, metric: Metric, confidence: float) -> Estimate | None:
    """What the true task labels alone say on test records, over the seeds; equal floors count once."""
    by_seed: dict[tuple[int, float], Score] = {}
    for point in points:
        leakage = point.result.leakage.get(attribute) if point.result is not None else None
        score = drawable(leakage.floor, metric) if leakage is not None else None
        if score is not None:
            by_seed[point.seed, score.value] = score
    return estimate(list(by_seed.values()), confidence) if by_seed else None


def label_line(points: Sequence[Point], attribute: str, metric: Metric) -> tuple[tuple[float, float], ...]:
    """``(leakage, utility)`` of the best releases that are functions of the true task labels, leakage rising.

    From the label counts of all seeds together; empty where results hold none, or the leakage is no AUC or
    balanced accuracy.
    """
    if metric not in ("auc", "balanced_accuracy"):
        return ()
    tables: dict[tuple[object, ...], np.ndarray] = {}
    sizes: dict[tuple[int, ...], None] = {}
    for point in points:
        leakage = point.result.leakage.get(attribute) if point.result is not None else None
        known = leakage.label_counts if leakage is not None else None
        if known is not None:
            table = np.array(known.counts)
            sizes[tuple(known.sizes)] = None
            tables[point.seed, table.tobytes()] = table
    if len(sizes) != 1 or len({table.shape for table in tables.values()}) != 1:
        return ()
    found = label_limit(np.sum(list(tables.values()), axis=0), list(next(iter(sizes))), area=metric == "auc")
    if found is None:
        return ()
    return tuple(zip(found.leakage.tolist(), found.utility.tolist(), strict=True))
