"""One line of an audit: what was claimed, and the least that the draws prove against it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from privhier.privacy.shown import claim, lower_bound


class AuditRow(BaseModel):
    """One audited claim; any audit (releases, DP-SGD canaries, a reloaded edge) writes such rows.

    Example:
        >>> AuditRow(name="releases", what="one record", adjacency="replace one", refuted=False).draws
        0
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    """Short and unique within one audit, e.g. ``training: releases``."""
    what: str
    """What was tried, in words."""
    adjacency: str
    """Which two inputs the claim says cannot be told apart."""
    claimed_epsilon: float | None = Field(None, ge=0)
    """None: the row passes or fails, there is no epsilon to compare."""
    delta: float | None = Field(None, ge=0, lt=1)
    lower_95: float | None = Field(None, ge=0)
    """Epsilon is at least this, at confidence 0.95."""
    lower_alarm: float | None = Field(None, ge=0)
    """Epsilon is at least this, at the alarm's confidence; only this one refutes."""
    draws: int = Field(0, ge=0)
    """Trials counted for ``lower_95``, both inputs together; a trial may take several releases."""
    view: str = ""
    """The inputs and the statistic behind ``lower_95``."""
    refuted: bool
    note: str = ""

    def line(self) -> str:
        """The row as one line of text."""
        verdict = "REFUTED" if self.refuted else "ok"
        parts = [f"{verdict:<7} {self.name}:"]
        if self.claimed_epsilon is not None and self.lower_95 is not None:
            at = f" at delta {claim(self.delta)}" if self.delta else ""
            low = lower_bound(self.lower_95)
            parts.append(f"claimed epsilon {claim(self.claimed_epsilon)}{at}, at least {low}")
            parts.append(f"({self.view}, {self.draws:,} draws counted)")
        if self.note:
            parts.append(f"[{self.note}]" if len(parts) > 1 else self.note)
        return " ".join(parts)
