"""LiRA (Carlini et al., 2022, "Membership inference attacks from first principles")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from privhier.attacks.membership.base import MembershipAttack, MembershipResult, Scores, membership_attacks
from privhier.attacks.membership.shadows import QUERIES, BoolArray, ask_target, shadow_models
from privhier.attacks.membership.view import MembershipView
from privhier.config.choices import option

_LEAST_SPREAD = 1e-3
"""Log-odds. Models that all say the same have no density to compare with."""


@membership_attacks.register("lira")
@dataclass(frozen=True)
class LiraAttack(MembershipAttack):
    """Gaussians of every candidate's log-odds under shadow models with and without it (LiRA).

    The statistic is phi = log p_y - log(1 - p_y), summed over tasks; the score is the log-likelihood
    ratio of the target's phi under "in" and "out" (paper, algorithm 1), averaged over the queries. The
    offline variant looks at models without the candidate only: its score is -log P(phi_out >= phi).

    Attributes:
        shadows: Shadow models, an even number; each is trained on a random half of the candidates.
        mirrored: Ask for the mirrored image too.
        offline: Use only the shadow models that were not trained on a candidate.
        own_variance_from: Shadow models from which on every candidate gets variances of its own; with
            fewer, one variance of "in" and one of "out" is pooled over all candidates (the paper finds
            64 to be where this turns).
    """

    mirrored: bool = True
    offline: bool = False
    own_variance_from: int = option(64, low=4)

    def run(self, view: MembershipView) -> MembershipResult:
        """See ``MembershipAttack``."""
        n, queries = len(view.images), len(QUERIES) if self.mirrored else 1
        shadows = shadow_models(view, self.shadows)
        inside = np.stack([shadow.inside[:n] for shadow in shadows])
        scores: dict[str, Scores] = {}
        for part, target in ask_target(view).items():
            phi = target[:queries, :n].sum(axis=2, dtype=np.float64)
            others = np.stack([shadow.said[part][:queries, :n] for shadow in shadows])
            scores[part] = self._score(phi, others.sum(axis=3, dtype=np.float64), inside)
        return MembershipResult(
            scores=scores,
            selected={"variance": "own" if self._own_variance() else "pooled", "queries": queries},
            queries=(1 + self.shadows) * queries * n * len(scores),
        )

    def _own_variance(self) -> bool:
        return self.shadows >= self.own_variance_from

    def _score(self, phi: Scores, others: Scores, inside: BoolArray) -> Scores:
        """Scores (n,) from the target's phi (Q, n), the shadows' (S, Q, n) and who was in (S, n)."""
        mean_out, spread_out = self._gaussian(others, ~inside)
        if self.offline:
            return np.asarray(-norm.logsf(phi, mean_out, spread_out).mean(axis=0), dtype=np.float64)
        mean_in, spread_in = self._gaussian(others, inside)
        ratio = norm.logpdf(phi, mean_in, spread_in) - norm.logpdf(phi, mean_out, spread_out)
        return np.asarray(ratio.mean(axis=0), dtype=np.float64)

    def _gaussian(self, others: Scores, chosen: BoolArray) -> tuple[Scores, Scores]:
        """Mean (Q, n) and standard deviation (Q, n) or (Q, 1) over the chosen models."""
        weight = chosen[:, None].astype(np.float64)
        count = weight.sum(axis=0)
        mean = (weight * others).sum(axis=0) / count
        squares = (weight * (others - mean) ** 2).sum(axis=0)
        if self._own_variance():
            variance = squares / (count - 1)
        else:
            # Around each candidate's own mean: what differs between candidates is not a model's chance.
            variance = squares.sum(axis=1, keepdims=True) / (count - 1).sum(axis=1, keepdims=True)
        return mean, np.maximum(np.sqrt(variance), _LEAST_SPREAD)
