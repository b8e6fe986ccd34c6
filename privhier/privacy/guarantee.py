"""One guarantee, and the account that guarantees are written from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount

VACUOUS_ABOVE = 10.0
"""Epsilons above this promise next to nothing by themselves and say so."""

OWN_RELEASES = "own releases of one record"
CURIOUS_CLOUD = "training records against the curious cloud"
EDGE_WEIGHTS = "training records through the edge's weights"
TASK_LABELS = "task labels of one training record"

_SEEDED = (
    "simulation: void against anyone who knows the seed; its 32-bit generator repeats a batch's noise in "
    "about one of ten runs of 30,000 batches"
)
"""Birthdays: n batches share one of 2**32 seeds with probability 1 - exp(-n**2 / 2**33), 0.0995 at 30,000."""


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
        allows: The best balanced accuracy at telling the two inputs apart, from the mechanism, rounded up;
            None where there is no epsilon.
        measure: Of what the row speaks: an epsilon, or maximal leakage.
        nats: Maximal leakage L; None: no finite bound, or a row that speaks of an epsilon.
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
    allows: float | None = None
    measure: Literal["epsilon", "maximal_leakage"] = "epsilon"
    nats: float | None = None


@dataclass(frozen=True)
class Account:
    """Everything charged, composed, and the terms it is stated in.

    Attributes:
        releases: Per split, one record's own releases.
        steps: DP-SGD on the edge; empty: none.
        responses: Randomized responses on one training record's task labels; empty: sent in the clear.
        mechanism: Of the releases.
        noise_source: ``seeded`` or ``system``; "" where nothing was charged.
        delta: In (0, 1).
        open_ends: What no row covers.
    """

    releases: Mapping[str, ReleaseAccount]
    steps: StepAccount
    responses: Responses
    mechanism: str
    noise_source: str
    delta: float
    open_ends: Sequence[str]

    def of(self, split: str) -> ReleaseAccount:
        """One record's own releases in ``split``."""
        return self.releases.get(split, ReleaseAccount())


def number(account: Account, epsilon: float, otherwise: str) -> tuple[float | None, float | None, str]:
    """Epsilon, delta and note of a row; without a finite epsilon, no number and the reason."""
    if not math.isfinite(epsilon):
        return None, None, otherwise
    return epsilon, account.delta, note_on(epsilon, account.noise_source)


def note_on(epsilon: float, noise_source: str) -> str:
    """What must be said beside an epsilon."""
    notes = ["numerically vacuous"] if epsilon > VACUOUS_ABOVE else []
    if noise_source == "seeded":
        notes.append(_SEEDED)
    return "; ".join(notes)
