"""From views to a row: a test fixed on some draws, counted on others, compared with what the claim allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privhier.audit.bounds import FloatArray, mu_lower_bound, pure_lower_bound
from privhier.audit.row import AuditRow
from privhier.audit.trials import Kind
from privhier.audit.views import View
from privhier.privacy.accounting import gaussian_epsilon
from privhier.privacy.shown import lower_bound

_FEWEST = 48
"""Trials under each input below which even a noiseless difference shows nothing at the alarm's level."""
_CAUTIOUS = 1 - 1e-6
"""Confidence at which tests are compared: lower ones would pick rare events that only look good."""


@dataclass(frozen=True)
class Test:
    """Call positive what is at least ``threshold`` after multiplying with ``sign``."""

    sign: float
    threshold: float

    def counts(self, low: FloatArray, high: FloatArray) -> tuple[int, int, int, int]:
        """True positives, positives, false positives, negatives."""
        true = int((self.sign * high >= self.threshold).sum())
        false = int((self.sign * low >= self.threshold).sum())
        return true, len(high), false, len(low)


class Judge:
    """Chooses tests, counts, and compares with claims.

    Args:
        kind: Which strength the views are measured in.
        delta: Of the claim; 0 where it is pure.
        alarm: Confidence of every single count that may refute.
    """

    def __init__(self, kind: Kind, delta: float, alarm: float) -> None:
        self.kind, self.delta, self.alarm = kind, delta, alarm
        self.bound = mu_lower_bound if kind == "gaussian" else pure_lower_bound

    def epsilon(self, strength: float) -> float:
        """Strength as epsilon; a bound below nothing is nothing."""
        strength = max(0.0, strength)
        return gaussian_epsilon(strength, self.delta) if self.kind == "gaussian" else strength

    def choose(self, low: FloatArray, high: FloatArray) -> tuple[Test, float]:
        """The best test on these scores and its bound there (optimistic: it was chosen here)."""
        best, best_bound = Test(1.0, 0.0), -np.inf
        for sign in (1.0, -1.0):
            a, b = np.sort(sign * low), np.sort(sign * high)
            pool = np.sort(np.concatenate([a, b]))
            places = np.linspace(0, len(pool) - 1, 400).astype(int)
            thresholds = np.unique(pool[places])
            false = len(a) - np.searchsorted(a, thresholds, side="left")
            true = len(b) - np.searchsorted(b, thresholds, side="left")
            bounds = self.bound(true, len(b), false, len(a), _CAUTIOUS)
            top = int(np.argmax(bounds))
            if bounds[top] > best_bound:
                best, best_bound = Test(sign, float(thresholds[top])), float(bounds[top])
        return best, best_bound

    def row(
        self, name: str, what: str, adjacency: str, claim: float, views: Sequence[View], draws: int
    ) -> AuditRow:
        """Half of the draws choose (and look at every view), the other half count for the chosen one."""
        alarms: list[tuple[float, str, float]] = []
        chosen: list[tuple[float, View, Test]] = []

        def look(view: View, test: Test, trials: int) -> tuple[float, float]:
            counts = test.counts(*view.draw(trials))
            alarm = float(self.bound(*counts, self.alarm))
            alarms.append((alarm - view.allowed, view.name, alarm * view.scale))
            return float(self.bound(*counts, 0.95)) * view.scale, alarm * view.scale

        for view in views:
            trials = self._trials(view, draws / len(views) / 8)
            test, bound = self.choose(*view.draw(trials))
            look(view, test, trials)
            chosen.append((bound * view.scale, view, test))
        _, view, test = max(chosen, key=lambda found: found[0])
        trials = self._trials(view, draws / 4)
        lower, alarm = look(view, test, trials)
        broken = [
            f"{text} (at least {lower_bound(self.epsilon(bound), 3)})"
            for over, text, bound in alarms
            if over > 0
        ]
        return AuditRow(
            name=name,
            what=what,
            adjacency=adjacency,
            claimed_epsilon=self.epsilon(claim),
            delta=self.delta,
            lower_95=self.epsilon(lower),
            lower_alarm=self.epsilon(alarm),
            draws=2 * trials,
            view=view.name,
            refuted=bool(broken),
            note="refuted by: " + "; ".join(dict.fromkeys(broken)) if broken else "",
        )

    def _trials(self, view: View, share: float) -> int:
        """Trials under each input; a call of the release function counts like 64 rows."""
        share *= view.many
        return max(_FEWEST, int(share / max(1, 64 * view.calls) if view.calls else share))
