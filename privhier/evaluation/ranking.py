"""Families of a frontier in order, with confidence: least leakage at a tolerated loss of the task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privhier.evaluation.candidate import least_leaking
from privhier.evaluation.draws import DRAWS, Draws, drawn_points
from privhier.evaluation.frontier import Candidate, Frontier

TOLERATED = (0.01, 0.03)
"""Task AUC that may be lost against the bare network."""
BARE = "none"
"""The family that defends nothing: the baseline of the task."""
RANK_METHOD = (
    "A family stands by its setting of least leakage (below guessing counts as guessing; of equals the most "
    "useful) among those that lose at most so much task AUC against the most useful setting that defends "
    "nothing (family none; without one, the most useful of all). In every draw each point, and so the "
    "baseline, is moved within its interval and the setting chosen anew; a family without a setting that "
    "useful comes last. A is above B in the share of the draws in which A's leakage is lower, ties counting "
    "one half. A family with more settings has more chances to be lucky."
)


@dataclass(frozen=True)
class Placed:
    """A family's place.

    Attributes:
        family: Its name.
        candidate: Its setting of least leakage within the tolerated loss, as measured; None: none is.
        task_lost: Of that setting (of the most useful one where none is within): baseline minus utility.
        wins: Mean share of the draws in which it is above another family, over the others; in [0, 1].
        first: Share of the draws in which none is above it; who ties shares alike.
        above_next: Share of the draws in which it is above the family after it; None for the last.
    """

    family: str
    candidate: Candidate | None
    task_lost: float
    wins: float
    first: float
    above_next: float | None


@dataclass(frozen=True)
class Ranking:
    """All families at one tolerated loss, the best first.

    Attributes:
        tolerated: Task AUC that may be lost.
        baseline: Task AUC of the most useful setting that defends nothing.
        placed: The families.
        above: For every ordered pair, the share of the draws in which the first is above the second.
    """

    tolerated: float
    baseline: float
    placed: tuple[Placed, ...]
    above: dict[tuple[str, str], float]


def baseline_of(front: Frontier) -> list[int]:
    """The candidates that the task is held against: those that defend nothing, else all."""
    bare = [i for i, candidate in enumerate(front.candidates) if candidate.family == BARE]
    return bare or list(range(len(front.candidates)))


def allowed(front: Frontier, tolerated: float) -> list[Candidate]:
    """The candidates that lose at most so much task AUC as measured."""
    bare = max(front.candidates[i].utility.value for i in baseline_of(front))
    return [c for c in front.candidates if c.utility.value >= bare - tolerated - 1e-12]


def rank_families(front: Frontier, *, tolerated: float) -> Ranking:
    """Rank the families of a frontier (``RANK_METHOD``); the same frontier gives the same shares.

    Args:
        front: Of one bench and attribute.
        tolerated: Task AUC that may be lost against the bare network, in [0, 1].
    """
    if not 0 <= tolerated <= 1:
        raise ValueError(f"tolerated must lie in [0, 1], got {tolerated}")
    candidates = front.candidates
    u, v = drawn_points(
        [c.utility for c in candidates],
        [c.leakage for c in candidates],
        front.confidence,
        "ranking",
        front.bench,
        front.attribute,
        guessing=front.chance,
    )
    base = baseline_of(front)
    usable = u >= u[:, base].max(axis=1, keepdims=True) - tolerated - 1e-12
    leaks = np.where(usable, v, np.inf)
    families = list(dict.fromkeys(c.family for c in candidates))
    columns = [[i for i, c in enumerate(candidates) if c.family == name] for name in families]
    least = np.stack([leaks[:, own].min(axis=1) for own in columns], axis=1)  # (DRAWS, families)
    above = {
        (a, b): _share(least[:, i], least[:, j])
        for i, a in enumerate(families)
        for j, b in enumerate(families)
        if i != j
    }
    wins = {a: float(np.mean([above[a, b] for b in families if b != a] or [1.0])) for a in families}
    firsts = least == least.min(axis=1, keepdims=True)
    first = dict(zip(families, (firsts / firsts.sum(axis=1, keepdims=True)).sum(axis=0) / DRAWS, strict=True))
    baseline = max(candidates[i].utility.value for i in base)
    within = allowed(front, tolerated)
    order = sorted(families, key=lambda name: -wins[name])
    placed = []
    for place, name in enumerate(order):
        own = [c for c in within if c.family == name]
        chosen = least_leaking(own)
        shown = chosen or max((c for c in candidates if c.family == name), key=lambda c: c.utility.value)
        after = order[place + 1] if place + 1 < len(order) else None
        placed.append(
            Placed(
                name,
                chosen,
                baseline - shown.utility.value,
                wins[name],
                float(first[name]),
                None if after is None else above[name, after],
            )
        )
    return Ranking(tolerated, baseline, tuple(placed), above)


def _share(a: Draws, b: Draws) -> float:
    """Of the draws in which a is lower; equal ones, both out of the running included, count one half."""
    return float(np.mean((a < b) + 0.5 * (a == b)))
