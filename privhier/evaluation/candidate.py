"""All seeds of one setting as one point of a frontier's plane, and which of several leaks least."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from privhier.evaluation.headline import counted
from privhier.evaluation.points import Estimate, Point


@dataclass(frozen=True)
class Candidate:
    """All seeds of one setting as one point of the plane.

    Attributes:
        points: Its runs, one per seed.
        utility: The cloud's AUC, mean over the tasks.
        leakage: The headline, as measured: the worst of test and training records and of all threat models.
        excess: What of it is beyond the true task labels' floor, where that was measured.
        ceiling: The most any attacker can reach from these releases, where it is proven.
        epsilon: Of the first guarantee that holds one; the largest over the seeds.
        on_front: No other candidate is at least as good in both and better in one.
        front_share: Share of the draws in which it is on the front.
        delta: Of that guarantee, likewise; 0 where it is pure.
        allows: What its epsilon allows, likewise: best balanced accuracy at telling two records apart.
        cloud_gain: The cloud's AUC minus the edge exit's, mean over the tasks; None for older results.
        certified: The most that any attacker reaches on test records, where every seed has a certificate.
        guessing: What an attacker who knows nothing reaches; ``counted`` is no lower.
    """

    points: tuple[Point, ...]
    utility: Estimate
    leakage: Estimate
    ceiling: float | None
    epsilon: float | None
    on_front: bool
    front_share: float
    excess: Estimate | None = None
    delta: float | None = None
    allows: float | None = None
    cloud_gain: Estimate | None = None
    certified: float | None = None
    guessing: float = 0.0

    @property
    def counted(self) -> float:
        """What its leakage counts as in every order: at least guessing."""
        return counted(self.leakage.value, self.guessing)

    @property
    def family(self) -> str:
        """What colors it."""
        return self.points[0].family

    @property
    def unprotected(self) -> bool:
        """Neither noise nor a defense."""
        return all(point.unprotected for point in self.points)


def least_leaking(candidates: Iterable[Candidate]) -> Candidate | None:
    """The one of least leakage (``counted``); of equals the most useful, then the first."""
    return min(candidates, key=lambda one: (one.counted, -one.utility.value), default=None)
