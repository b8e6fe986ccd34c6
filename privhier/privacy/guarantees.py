"""Guarantees in words: what the account's numbers promise, to whom, and what they leave open.

Takes numbers and knows nothing of how they were counted; ``Ledger.guarantees`` feeds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from privhier.privacy.accounting import gaussian_epsilon

VACUOUS_ABOVE = 10.0
"""Epsilons above this promise next to nothing by themselves and say so."""

OWN_RELEASES = "own releases of one record"
CURIOUS_CLOUD = "training records against the curious cloud"

_SEEDED = "simulation: void against anyone who knows the seed"


@dataclass(frozen=True)
class Guarantee:
    """One (epsilon, delta) statement.

    Attributes:
        name: What is protected, from what.
        adversary: Whom it binds.
        adjacency: Which two inputs cannot be told apart.
        unit: ``"record"`` or ``"person"``.
        epsilon: None: no guarantee; the note says why.
        delta: 0 for pure epsilon, None where there is no epsilon.
        covers: What may be published without weakening it.
        does_not_cover: What it says nothing about.
        note: Caveats on the number itself.
    """

    name: str
    adversary: str
    adjacency: str
    unit: Literal["record", "person"]
    epsilon: float | None
    delta: float | None
    covers: list[str] = field(default_factory=list)
    does_not_cover: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class ReleaseAccount:
    """The releases that any one record of a split has had, composed.

    Attributes:
        releases: T.
        mu_squared: Sum of ``(2C / sigma)**2`` over them (gaussian); ``inf`` if one had no noise.
        epsilon: Sum of ``2C / b`` over them (laplace); ``inf`` if one had no noise.
    """

    releases: int = 0
    mu_squared: float = 0.0
    epsilon: float = 0.0

    def spent(self, mechanism: str, delta: float, records: int = 1) -> float:
        """Replace-one epsilon of all releases of ``records`` records of one person together.

        Gaussian: k records of T releases each are sqrt(k T) (2C / sigma)-GDP. Laplace: k times.
        """
        if self.releases == 0:
            return 0.0
        if mechanism == "gaussian":
            return gaussian_epsilon(math.sqrt(records * self.mu_squared), delta)
        return records * self.epsilon if mechanism == "laplace" else math.inf


def write_guarantees(
    accounts: Mapping[str, ReleaseAccount],
    *,
    mechanism: str,
    noise_source: str,
    delta: float,
    largest_person: Mapping[str, int] | None,
    labels_in_clear: bool,
    also_not_covered: Sequence[str],
) -> list[Guarantee]:
    """The rows of the guarantee table, own releases first; see ``Ledger.guarantees``."""
    counts = ", ".join(f"{split} {account.releases}" for split, account in sorted(accounts.items()))
    worst = max(
        accounts.values(),
        key=lambda account: (account.spent(mechanism, delta), account.releases),
        default=ReleaseAccount(),
    )
    open_ends = _not_covered(noise_source, labels_in_clear, also_not_covered)
    norm = "L1" if mechanism == "laplace" else "L2"
    covers = [
        f"all {worst.releases} releases of one record together, in the split whose records spent most "
        f"(the largest number of releases any record has had: {counts or 'none'})",
        "whatever is computed from those releases: cloud tails, attacks, decoders, results",
    ]
    epsilon, spent_delta, note = _number(worst, mechanism, noise_source, delta, 1)
    rows = [
        Guarantee(
            name=OWN_RELEASES,
            adversary="sees only that record's releases; or sees everything, and the edge was never "
            "trained on that record",
            adjacency=f"replace one record by any other ({norm} sensitivity 2C)",
            unit="record",
            epsilon=epsilon,
            delta=spent_delta,
            covers=covers if epsilon is not None else [],
            does_not_cover=[
                "training records against whoever also sees other records' releases or the edge's "
                "weights: see the curious-cloud row",
                "several records of one person: see the person rows"
                if largest_person
                else "several records of one person (this data set names no people)",
                *open_ends,
            ],
            note=note,
        ),
        Guarantee(
            name=CURIOUS_CLOUD,
            adversary="honest but curious cloud: all releases of all records, task labels, the tail",
            adjacency="replace one training record by any other",
            unit="record",
            epsilon=None,
            delta=None,
            covers=[],
            does_not_cover=["everything a training record put into the edge's weights", *open_ends],
            note="none: other records' releases pass through edge weights that were trained on the record, "
            "without DP-SGD on every edge parameter that private data touched, adversarial exits included",
        ),
    ]
    for split, k in sorted((largest_person or {}).items()):
        account = accounts.get(split, ReleaseAccount())
        epsilon, spent_delta, note = _number(account, mechanism, noise_source, delta, k)
        rows.append(
            Guarantee(
                name=f"own releases of one person, {split} records",
                adversary="sees only the releases of that person's records; or sees everything, and the "
                "edge was never trained on any record of that person",
                adjacency=f"replace all {k} records of one person by any others, the most that anyone has "
                f"in this split ({norm} sensitivity 2C each)",
                unit="person",
                epsilon=epsilon,
                delta=spent_delta,
                covers=[f"all {account.releases} releases of each of the person's {k} records together"]
                if epsilon is not None
                else [],
                does_not_cover=[
                    "training records against whoever also sees other people's releases or the edge's "
                    "weights: see the curious-cloud row",
                    "records of the same person in other splits",
                    *open_ends,
                ],
                note=note,
            )
        )
    return rows


def _number(
    account: ReleaseAccount, mechanism: str, noise_source: str, delta: float, records: int
) -> tuple[float | None, float | None, str]:
    """Epsilon, delta and the note on them."""
    if account.releases == 0:
        return 0.0, 0.0, "nothing was released"
    if mechanism == "none":
        return None, None, "no guarantee: raw features were released"
    epsilon = account.spent(mechanism, delta, records)
    if math.isinf(epsilon):
        return None, None, "no guarantee: releases without noise are among them"
    notes = ["numerically vacuous"] if epsilon > VACUOUS_ABOVE else []
    if noise_source == "seeded":
        notes.append(_SEEDED)
    return epsilon, (delta if mechanism == "gaussian" else 0.0), "; ".join(notes)


def _not_covered(noise_source: str, labels_in_clear: bool, more: Sequence[str]) -> list[str]:
    labels = ["task labels, sent in the clear with each training release"] if labels_in_clear else []
    generator = {
        "seeded": "the random generator: a Mersenne twister, seeded, not cryptographic",
        "system": "the random generator: the operating system's, trusted and not proven",
    }
    return [
        *labels,
        "clip bounds, normalization constants, class weights and the number of records, where they were "
        "read off the data",
        "early stopping, hyper-parameters, thresholds and sweep points chosen on private results",
        "record numbers, message sizes and their timing",
        "floating-point effects: noise is added and rounded in float32, not in exact arithmetic",
        generator.get(noise_source, "the random generator"),
        *more,
    ]
