"""Maximal leakage as a row of the guarantee table: how much a record's own releases help to guess anything.

Takes what was charged (``released_of`` a ledger's events) and the width of a release; letters are made by
``letters_released``. Releases of one record add up, and so does a clip bound drawn from the records, whose
leakage is at most its pure epsilon.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from privhier.privacy.channels import build_channel
from privhier.privacy.events import ClipEvent, Event, LetterEvent, ReleaseEvent
from privhier.privacy.guarantee import Guarantee, note_on
from privhier.privacy.maximal_leakage import channel_leakage, letters_leakage, release_leakage
from privhier.privacy.shown import claim, lower_bound

MAXIMAL_LEAKAGE = "maximal leakage of one record's own releases"


@dataclass(frozen=True)
class Released:
    """Equal releases of one record.

    Attributes:
        nats: L of all of them; ``inf``: nothing bounds it.
        count: T.
        words: What they are.
        noisy: Whether a random generator was trusted for it.
    """

    nats: float
    count: int
    words: str
    noisy: bool = True


def values_released(
    mechanism: Literal["none", "gaussian", "laplace"], sigma: float, clip: float, dimension: int, count: int
) -> Released:
    """``count`` releases of ``dimension`` values; arguments as for ``release_leakage``."""
    nats = release_leakage(mechanism, sigma, clip, dimension, count)
    noise = {"none": "raw values", "gaussian": "values with Gaussian noise"}
    words = noise.get(mechanism, "values with Laplace noise")
    return Released(nats, count, f"{dimension} {words}", noisy=mechanism != "none")


def letters_released(mechanism: str, letters: int, groups: int, epsilon: float, count: int) -> Released:
    """``count`` releases of letters.

    Args:
        mechanism: ``none`` (the true letters) or the name of a channel.
        letters: K.
        groups: M, letters of one release.
        epsilon: Of one answer; not read where there is no channel.
        count: T.
    """
    what = f"{groups} letter{'s' if groups != 1 else ''} of {letters}"
    if mechanism == "none":
        return Released(letters_leakage(letters, groups, count), count, what, noisy=False)
    matrix = build_channel(mechanism, letters, epsilon).matrix.numpy()
    words = f"{what} through {mechanism.replace('_', ' ')}"
    return Released(channel_leakage(matrix, groups, count), count, words)


def released_of(events: Iterable[Event], dimension: int) -> dict[str, list[Released]]:
    """By split, what one record has released according to a ledger's events.

    Args:
        events: ``Ledger.events``.
        dimension: Values of one release.
    """
    counts: defaultdict[str, defaultdict[tuple[Any, ...], int]] = defaultdict(lambda: defaultdict(int))
    found: defaultdict[str, list[Released]] = defaultdict(list)
    for event in events:
        if isinstance(event, ReleaseEvent):
            counts[event.split][event.mechanism, event.sigma, event.clip] += event.releases
        elif isinstance(event, LetterEvent):
            alphabet = (event.mechanism, event.letters, event.groups, event.epsilon)
            counts[event.split][alphabet] += event.releases
        elif isinstance(event, ClipEvent):
            words = "the choice of the clip bound (at most its pure epsilon)"
            found[event.split].append(Released(event.epsilon, 0, words))
    for split, equal in counts.items():
        for terms, count in equal.items():
            if len(terms) == 4:
                found[split].append(letters_released(*terms, count))
            else:
                mechanism, sigma, clip = terms
                found[split].append(values_released(mechanism, sigma, clip, dimension, count))
    return dict(found)


def maximal_leakage_row(
    released: Mapping[str, Sequence[Released]], *, noise_source: str, open_ends: Sequence[str] = ()
) -> Guarantee:
    """The row: of the split whose records have released most.

    Args:
        released: By split, one record's own releases.
        noise_source: ``seeded`` or ``system``.
        open_ends: What no row covers.

    Returns:
        A row without epsilon; ``nats`` is None where no finite bound exists, and the note says so.
    """
    totals = {split: math.fsum(part.nats for part in parts) for split, parts in released.items()}
    split = max(totals, key=lambda name: totals[name], default="")
    nats, parts = totals.get(split, 0.0), released.get(split, ())
    finite = math.isfinite(nats)
    return Guarantee(
        name=MAXIMAL_LEAKAGE,
        adversary="guesses any secret of the record, or any function of it, thought of before or after, from "
        "that record's own releases and nothing else that depends on the record",
        adjacency="no two records are compared: a guess with the releases is, with the best one without them",
        unit="record",
        epsilon=None,
        delta=None,
        covers=[_covered(nats, split, parts)] if finite else [],
        does_not_cover=[
            "the worst single record: it bounds the chance over all records; one record alone is what "
            "epsilon is for",
            "training records against whoever also sees other records' releases or the edge's weights, which "
            "depended on them",
            "several records of one person: theirs add up",
            "randomized task labels sent with training releases",
            "secrets of the whole data set: their shares among all records",
            *open_ends,
        ],
        note=_note(nats, noise_source if any(part.noisy for part in parts) else "")
        if finite
        else "none: values without noise are among them, and no finite L bounds them",
        nats=nats if finite else None,
        measure="maximal_leakage",
    )


def _covered(nats: float, split: str, parts: Sequence[Released]) -> str:
    each = "; ".join(f"{part.count} x {part.words}" if part.count else part.words for part in parts)
    where = f" in the split whose records released most ({split}: {each})" if parts else ""
    return (
        f"all releases of one record together{where}: whatever the secret, P(guess) <= {factor(nats)} times "
        "the best blind guess"
    )


def factor(nats: float) -> str:
    """``e^L`` as text, rounded up.

    Example:
        >>> factor(1.0), factor(0.0), factor(2000.0)
        ('2.719', '1', 'e^2000')
    """
    if nats > 600:  # beyond float64
        return f"e^{claim(nats)}"
    return claim(math.exp(nats) * (1 + 1e-12)) if nats else "1"


def _note(nats: float, noise_source: str) -> str:
    if nats == 0:
        return "nothing was released"
    # Rounded up: where the bound says nothing begins no later than it does.
    least = lower_bound(math.exp(-nats), 3) if nats < 600 else f"e^-{claim(nats)}"
    note = (
        f"L = {claim(nats)} nats; says nothing of a secret that a blind guess hits with probability {least} "
        "or more"
    )
    simulated = note_on(0.0, noise_source)
    return f"{note}; {simulated}" if simulated else note
