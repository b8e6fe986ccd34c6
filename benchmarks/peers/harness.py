"""Ratios against a peer, measured in one run: alternating pairs that start alike and end alike, or no ratio.

Timed are processor seconds of this process, all its threads together: where others use the machine, the clock
on the wall measures them. The wall's ratio is kept beside it: who waits or sleeps shows there.

A contender is three calls inside one another: ``start()`` makes what is not timed (a fresh network, the
data), what it returns is timed, and what that returns says, untimed again, what was reached. A pair counts
only where both began with the same network and the same data and ended at the same loss.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class UnequalError(RuntimeError):
    """Two contenders that did not do the same: their times say nothing about one another."""


class MissingError(RuntimeError):
    """A peer that is not installed, or cannot do what it is asked for."""


@dataclass(frozen=True)
class Outcome:
    """What a contender did.

    Attributes:
        network: Digest of the parameters it began with.
        data: Digest of what it worked on.
        loss: Where it ended; smaller is better, NaN is refused.
        work: Images, steps or records: the seconds are divided by it.
        quality: What else is worth knowing, printed and not compared.
    """

    network: str
    data: str
    loss: float
    work: int
    quality: str = ""


Report = Callable[[], Outcome]
Work = Callable[[], Report]


@dataclass(frozen=True)
class Contender:
    """Somebody who can do the work.

    Attributes:
        name: As the table says it.
        start: See the module.
    """

    name: str
    start: Callable[[], Work]


@dataclass(frozen=True)
class Rule:
    """When two ends count as the same.

    Attributes:
        reached: Both must end at most here; NaN: no such bound.
        within: Both losses may differ by so much of the larger; infinity where ``reached`` alone counts.
    """

    reached: float = float("nan")
    within: float = float("inf")

    def check(self, ours: Outcome, theirs: Outcome, peer: str) -> None:
        """Raise ``UnequalError`` where the two did not do the same."""
        if np.isnan(self.reached) and np.isinf(self.within):
            raise UnequalError(f"{peer}: a rule must say what the same loss is")
        for what in ("network", "data", "work"):
            one, other = getattr(ours, what), getattr(theirs, what)
            if one != other:
                raise UnequalError(f"{peer}: another {what} than ours ({other} against {one})")
        for who, loss in (("ours", ours.loss), (peer, theirs.loss)):
            if not np.isfinite(loss):
                raise UnequalError(f"{peer}: the loss of {who} is {loss}")
            if loss > self.reached:
                raise UnequalError(f"{peer}: {who} ended at {loss:.4g}, above {self.reached:.4g}")
        apart = abs(ours.loss - theirs.loss)
        if apart > self.within * max(abs(ours.loss), abs(theirs.loss)):
            raise UnequalError(f"{peer}: ended at {theirs.loss:.6g}, ours at {ours.loss:.6g}")


@dataclass(frozen=True)
class Row:
    """One line of the table of times.

    Attributes:
        what: The comparison.
        peer: Whom ours is held against, with its settings where they matter.
        versions: Of the peer.
        unit: Of ``ours`` and ``theirs``, which are medians in seconds.
        ratio: Median over pairs of the peer's time over ours: above 1, ours is faster.
        low, high: The smallest and the largest of the pairs.
        wall: The median ratio by the clock on the wall.
        wanted: What the ratio should be at least; None: it is only stated.
        note: Losses reached, quality.
    """

    what: str
    peer: str
    versions: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    wall: float
    pairs: int
    wanted: float | None
    note: str

    @property
    def verdict(self) -> str:
        """Whether what was wanted was reached; who is faster where nothing was."""
        if self.wanted is None:
            return "ours faster" if self.low > 1 else "ours slower" if self.high < 1 else "even"
        return "reached" if self.ratio >= self.wanted else f"NOT reached: {self.wanted:.2g} wanted"


def timed(contender: Contender) -> tuple[float, float, Outcome]:
    """Processor and wall seconds per piece of work, and what was reached."""
    work = contender.start()
    began, wall = time.process_time(), time.perf_counter()
    report = work()
    ended, after = time.process_time(), time.perf_counter()
    outcome = report()
    return (ended - began) / outcome.work, (after - wall) / outcome.work, outcome


def compare(
    what: str,
    ours: Contender,
    peer: Contender,
    *,
    versions: str,
    unit: str,
    pairs: int,
    rule: Rule,
    wanted: float | None = None,
    warm: bool = True,
) -> Row:
    """Time ours and a peer in alternating pairs, each pair checked by ``rule``.

    Raises:
        UnequalError: They did not do the same.
    """
    if pairs < 1:
        raise ValueError("at least one pair")
    if warm:
        timed(ours), timed(peer)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    walls: dict[str, list[float]] = {"ours": [], "peer": []}
    outcomes: dict[str, Outcome] = {}
    for number in range(pairs):
        order = [("ours", ours), ("peer", peer)]
        for who, contender in order if number % 2 == 0 else reversed(order):
            each, wall, outcomes[who] = timed(contender)
            seconds[who].append(each)
            walls[who].append(wall)
        rule.check(outcomes["ours"], outcomes["peer"], peer.name)
    ratios = [theirs / mine for mine, theirs in zip(seconds["ours"], seconds["peer"], strict=True)]
    note = f"loss {outcomes['ours'].loss:.3g} and {outcomes['peer'].loss:.3g}"
    said = [outcome.quality for outcome in (outcomes["ours"], outcomes["peer"]) if outcome.quality]
    return Row(
        what,
        peer.name,
        versions,
        unit,
        statistics.median(seconds["ours"]),
        statistics.median(seconds["peer"]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(theirs / mine for mine, theirs in zip(walls["ours"], walls["peer"], strict=True)),
        pairs,
        wanted,
        "; ".join([note, *([" and ".join(said)] if said else [])]),
    )


@dataclass(frozen=True)
class Strength:
    """One line of the table of strengths: the same victims, ours beside a peer.

    Attributes:
        what: The comparison.
        score: Which score: larger is stronger.
        ours, theirs: ``(value, low, high)``, 95 % bootstrap.
        gap: Ours minus the peer's ``(value, low, high)``, resampled together.
        seconds: Ours and theirs, once each.
    """

    what: str
    peer: str
    versions: str
    score: str
    ours: tuple[float, float, float]
    theirs: tuple[float, float, float]
    gap: tuple[float, float, float]
    n: int
    seconds: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Weaker only where the interval of the gap lies below 0 altogether."""
        _, low, high = self.gap
        return "ours stronger" if low > 0 else "ours WEAKER" if high < 0 else "no difference seen"


def strength(
    what: str,
    peer: str,
    *,
    versions: str,
    score: str,
    of: Callable[[Array, Array], float],
    ours: Array,
    theirs: Array,
    truth: Array,
    seconds: tuple[float, float],
    draws: int = 1000,
) -> Strength:
    """Both scores on the same victims, with intervals from the same resamples of them.

    Args:
        what: The comparison.
        peer: Whom ours is held against.
        versions: Of the peer.
        score: Its name.
        of: ``of(said, truth)``; larger is stronger.
        ours: ``(n, ...)``, what ours says of each victim.
        theirs: The same of the peer.
        truth: ``(n,)``.
        seconds: Ours and theirs.
        draws: Resamples; those with one class alone are drawn again.

    Raises:
        UnequalError: Other victims than ours.
    """
    if not len(ours) == len(theirs) == len(truth):
        raise UnequalError(f"{peer}: {len(theirs)} victims, ours {len(ours)}, truth {len(truth)}")
    rng, drawn = np.random.default_rng(0), []
    while len(drawn) < draws:
        rows = rng.integers(0, len(truth), len(truth))
        if len(np.unique(truth[rows])) == len(np.unique(truth)):
            drawn.append((of(ours[rows], truth[rows]), of(theirs[rows], truth[rows])))
    mine, others = np.array(drawn).T

    def interval(value: float, resampled: Array) -> tuple[float, float, float]:
        low, high = np.quantile(resampled, [0.025, 0.975])
        return value, float(low), float(high)

    at = of(ours, truth), of(theirs, truth)
    return Strength(
        what,
        peer,
        versions,
        score,
        interval(at[0], mine),
        interval(at[1], others),
        interval(at[0] - at[1], mine - others),
        len(truth),
        seconds,
    )


def digest(arrays: Iterable[Array]) -> str:
    """Of arrays, in order: shapes, types and values."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:12]


def smallest(ladder: Sequence[int], reaches: Callable[[int], bool]) -> int:
    """The first rung that reaches, found by halving: rungs above one that reaches are taken to reach too.

    Raises:
        MissingError: Not even the last one does.
    """
    if not reaches(ladder[-1]):
        raise MissingError(f"the loss is not reached in {ladder[-1]} steps")
    low, high = 0, len(ladder) - 1
    while low < high:
        middle = (low + high) // 2
        if reaches(ladder[middle]):
            high = middle
        else:
            low = middle + 1
    return ladder[high]
