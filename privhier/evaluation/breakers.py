"""Who breaks whom: what every attacker reads off every family beyond the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privhier.evaluation.candidate import Candidate, least_leaking
from privhier.evaluation.frontier import Frontier
from privhier.evaluation.headline import Metric, finite
from privhier.evaluation.points import Estimate, Point, estimate
from privhier.evaluation.ranking import allowed
from privhier.evaluation.result import AttackScores, AttributeLeakage, Score

TOLERATED = 0.03
"""Task AUC that a family's setting may lose; without such a setting its most useful one stands for it."""
ADAPTIVE = "white_box"
"""The threat model whose attackers hold the edge's weights and adapt to what it does."""


@dataclass(frozen=True)
class Broken:
    """One family, at one setting.

    Attributes:
        candidate: The setting.
        within: Whether it loses no more of the task than is tolerated.
        excess: Attacker to its score minus the floor, the higher of test and training records; over seeds.
            An attacker who was run for only some of the seeds is left out.
        winner: Who reads most.
        adaptive_gain: How much more the best attacker with the edge's weights reads than the best without;
            None where one of the two was not run.
    """

    candidate: Candidate
    within: bool
    excess: dict[str, Estimate]
    winner: str | None
    adaptive_gain: float | None

    @property
    def family(self) -> str:
        """Whose."""
        return self.candidate.family

    @property
    def fell(self) -> bool:
        """Whether an adaptive attacker reads more, by more than his interval reaches down."""
        if self.winner is None or self.adaptive_gain is None or self.adaptive_gain <= 0:
            return False
        won = self.excess[self.winner]
        return won.value - self.adaptive_gain < won.low


@dataclass(frozen=True)
class Breakers:
    """A matrix of families by attackers.

    Attributes:
        attackers: In order of appearance; those with the edge's weights last.
        adaptive: Those that hold the edge's weights.
        rows: The families.
        floored: Whether the scores are beyond the floor; else, without one, beyond guessing.
    """

    attackers: tuple[str, ...]
    adaptive: frozenset[str]
    rows: tuple[Broken, ...]
    floored: bool


def breakers(front: Frontier, *, tolerated: float = TOLERATED) -> Breakers:
    """The matrix of one frontier; every family at its setting of least leakage within the tolerated loss."""
    within = allowed(front, tolerated)
    floored = front.floor is not None
    rows, models = [], dict[str, str]()
    for family in dict.fromkeys(c.family for c in front.candidates):
        own = [c for c in within if c.family == family]
        chosen = least_leaking(own)
        if chosen is None:
            mine = (c for c in front.candidates if c.family == family)
            chosen = max(mine, key=lambda c: c.utility.value)
        told = [_told(point, front, floored) for point in chosen.points]
        for one in told:
            models |= {name: model for name, (_, model) in one.items()}
        common = [
            name for name in dict.fromkeys(n for one in told for n in one) if all(name in o for o in told)
        ]
        excess = {
            name: estimate([one[name][0] for one in told], front.confidence, least=-1.0) for name in common
        }
        rows.append(_broken(chosen, bool(own), excess, models))
    attackers = sorted(models, key=lambda name: models[name] == ADAPTIVE)
    adaptive = frozenset(name for name in attackers if models[name] == ADAPTIVE)
    return Breakers(tuple(attackers), adaptive, tuple(rows), floored)


def _broken(
    candidate: Candidate, within: bool, excess: dict[str, Estimate], models: dict[str, str]
) -> Broken:
    winner = max(excess, key=lambda name: excess[name].value, default=None)
    sides: dict[bool, list[float]] = {True: [], False: []}
    for name, score in excess.items():
        sides[models[name] == ADAPTIVE].append(score.value)
    gain = max(sides[True]) - max(sides[False]) if sides[True] and sides[False] else None
    return Broken(candidate, within, excess, winner, gain)


def _told(point: Point, front: Frontier, floored: bool) -> dict[str, tuple[Score, str]]:
    """Attacker to what he reads beyond the floor, and his threat model, of one run."""
    if point.result is None:
        return {}
    leakage = point.result.leakage[front.attribute]
    found = {}
    for attack in (*leakage.attacks, *leakage.attacks_with_labels):
        beyond = _beyond(attack, leakage, front, floored)
        if beyond:
            found[attack.attack] = max(beyond, key=lambda s: s.value), attack.threat_model
    return found


def _beyond(attack: AttackScores, leakage: AttributeLeakage, front: Frontier, floored: bool) -> list[Score]:
    """On test and on training records, each minus its own floor; the interval is the attacker's, moved."""
    shifted = []
    for score, floor in zip(_on(attack, front.metric), _floors(leakage, front, floored), strict=True):
        if score is not None and finite(score) and floor is not None:
            moved = {side: max(getattr(score, side) - floor, -1.0) for side in ("value", "low", "high")}
            shifted.append(Score(**moved, n=score.n))
    return shifted


def _on(scores: AttackScores, metric: Metric) -> Sequence[Score | None]:
    return getattr(scores, metric), scores.training_records.get(metric)


def _floors(leakage: AttributeLeakage, front: Frontier, floored: bool) -> tuple[float | None, float | None]:
    """What the labels tell on test and on training records; guessing where no floor was measured."""
    if not floored:
        return front.chance, front.chance
    if leakage.floor is None:
        return None, None
    test: Score | None = getattr(leakage.floor, front.metric)
    training = leakage.floor.training_records.get(front.metric)
    return (None if test is None else test.value), (None if training is None else training.value)
