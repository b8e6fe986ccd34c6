"""Counts held against the shares that a claim gives them: a test that is exact for any number of draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privhier.audit.bounds import FloatArray, multinomial_p_value
from privhier.audit.row import AuditRow

_EXPECTED = 8.0
"""Counts that a cell must be expected to have to stand alone; rarer ones share a cell."""
_NAMED = 3


@dataclass(frozen=True)
class Fit:
    """Counts, and the shares that a sound mechanism gives them.

    Attributes:
        name: What was counted, for the reader.
        counts: ``(k,)``.
        shares: Sum to 1, ``(k,)``; fixed by the claim, whatever was drawn.
        joint: Whether it is of several draws together, and so breaks as well where a single one does.
    """

    name: str
    counts: npt.NDArray[np.int64]
    shares: FloatArray
    joint: bool = False

    @property
    def off(self) -> float:
        """Total variation between what was counted and what is claimed, 0 to 1."""
        return float(np.abs(self.counts / max(1, self.counts.sum()) - self.shares).sum() / 2)

    def broken(self, level: float) -> bool:
        """Whether a sound mechanism gives such counts with a probability below ``level``."""
        return multinomial_p_value(self.counts, self.shares) < level


def lumped(name: str, counts: npt.NDArray[np.int64], shares: FloatArray) -> Fit:
    """A fit whose rare cells are one; what cannot come at all stays apart."""
    alone = (shares * counts.sum() >= _EXPECTED) | (shares == 0)
    together = np.append(counts[alone], counts[~alone].sum())
    chances = np.append(shares[alone], shares[~alone].sum())
    return Fit(name, together, chances / chances.sum())


def fitted_row(name: str, what: str, adjacency: str, fits: Sequence[Fit], level: float) -> AuditRow:
    """A row that fails where counts are as no sound mechanism gives them but with probability ``level``."""
    broken = sorted((fit for fit in fits if fit.broken(level)), key=lambda fit: (fit.joint, -fit.off))
    worst = "; ".join(f"{fit.name}, off by {fit.off:.2g}" for fit in broken[:_NAMED])
    more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return AuditRow(
        name=name,
        what=what,
        adjacency=adjacency,
        draws=int(sum(fit.counts.sum() for fit in fits)),
        refuted=bool(broken),
        note=f"refuted by: {worst}{more}" if broken else "as claimed",
    )
