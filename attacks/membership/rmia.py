"""RMIA: Zarifzadeh, Liu and Shokri, 2024, "Low-cost high-power membership inference attacks"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from privhier.attacks.membership.base import MembershipAttack, MembershipResult, Scores, membership_attacks
from privhier.attacks.membership.shadows import QUERIES, Shadow, ask_target, shadow_models
from privhier.attacks.membership.view import MembershipView
from privhier.attacks.view import FloatArray
from privhier.config.choices import option

_TINY = 1e-300


@membership_attacks.register("rmia")
@dataclass(frozen=True)
class RmiaAttack(MembershipAttack):
    """Likelihood ratio of a candidate against population records, with reference models (RMIA).

    A candidate x is compared with every population record z: how often is
    ``[p(x|target) / p(x)] / [p(z|target) / p(z)] >= gamma``? p(x|model) is the probability of the true
    labels of all tasks. p(x) averages models with and without x in equal parts; the offline variant has
    ``p(x) = ((1 + a) p_out(x) + 1 - a) / 2``. z is never in the target, so p(z) always comes from
    reference models without it, by the offline rule.
    Shares are averaged over the queries; candidates with equal shares are ordered by their own ratio,
    which the share grows with.

    Attributes:
        shadows: Reference models, an even number; each is trained on a random half of the candidates.
        gamma: How much likelier a candidate must be than a population record.
        offline_a: a above: 1 where a model without x says as much of x as any, 0 where it says nothing.
        mirrored: Ask for the mirrored image too.
        offline: Use only the reference models that were not trained on a candidate.
    """

    gamma: float = option(2.0, low=1.0, high=100.0)
    offline_a: float = option(0.3, low=0.0, high=1.0)
    mirrored: bool = True
    offline: bool = False

    def refuses(self, view: MembershipView) -> str | None:
        """See ``MembershipAttack``."""
        if not len(view.population.images):
            return "needs population records that are known not to be members"
        return None

    def run(self, view: MembershipView) -> MembershipResult:
        """See ``MembershipAttack``."""
        queries = len(QUERIES) if self.mirrored else 1
        shadows = shadow_models(view, self.shadows)
        said = ask_target(view)
        n, pool = len(view.images), len(view.images) + len(view.population.images)
        scores = {part: self._score(target[:queries], shadows, part, n) for part, target in said.items()}
        return MembershipResult(
            scores=scores,
            selected={"gamma": self.gamma, "a": self.offline_a, "queries": queries},
            queries=(1 + self.shadows) * queries * pool * len(scores),
        )

    def _score(self, target: FloatArray, shadows: Sequence[Shadow], part: str, n: int) -> Scores:
        """Scores (n,) from the target's log-odds (Q, pool, tasks)."""
        queries = len(target)
        inside = np.stack([shadow.inside for shadow in shadows])[:, None].astype(np.float64)
        likely = np.exp(np.stack([_log_likelihood(shadow.said[part][:queries]) for shadow in shadows]))
        out = ((1 - inside) * likely).sum(axis=0) / (1 - inside).sum(axis=0)
        evidence = ((1 + self.offline_a) * out + 1 - self.offline_a) / 2
        if not self.offline:
            mine = inside[..., :n]
            evidence[:, :n] = (out[:, :n] + (mine * likely[..., :n]).sum(axis=0) / mine.sum(axis=0)) / 2
        ratio = _log_likelihood(target) - np.log(np.maximum(evidence, _TINY))
        beaten = [
            np.searchsorted(np.sort(line[n:]) + np.log(self.gamma), line[:n], side="right") for line in ratio
        ]
        of = queries * (ratio.shape[1] - n)
        # expit keeps the tie-break below one step of the share.
        score = (np.sum(beaten, axis=0) + expit(ratio[:, :n].mean(axis=0))) / (of + 1)
        return np.asarray(score, dtype=np.float64)


def _log_likelihood(log_odds: FloatArray) -> Scores:
    """Log-probability of all tasks' true labels (Q, pool) from the log-odds of each (Q, pool, tasks)."""
    return np.asarray(-np.logaddexp(0, -log_odds.astype(np.float64)).sum(axis=2), dtype=np.float64)
