"""Focal entropy (Klein and Nabi, 2021, 2025): confusion among the classes an adversary takes for likely."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from privhier.defenses.adversarial import AdversarialDefense, PanelOptions, mean_over_adversaries
from privhier.defenses.base import UNKNOWN_LABEL, DefenseBatch, DefenseOptions, defenses


class FocalEntropyOptions(PanelOptions):
    """Options of focal entropy."""

    likely: int = Field(10, ge=1)
    """Classes of a secret that are the likely ones of a record, the true one among them; all of a secret
    with no more classes, for which this is maximum entropy."""


@defenses.register("focal_entropy")
class FocalEntropy(AdversarialDefense):
    r"""Maximum entropy for secrets of many classes, with as much weight on the likely few as on the rest.

    A record's likely classes L are its true class and those an adversary holds likeliest, U are all others;
    with p the prediction, of K classes, the divergence from uniform is, by the chain rule,

    .. math:: KL(u \,\|\, p) = KL(u_{LU} \,\|\, p_{LU}) + \tfrac{|L|}{K} KL(u_L \,\|\, p_L)
        + \tfrac{|U|}{K} KL(u_U \,\|\, p_U),

    where the first term compares the two masses. Of thousands of classes the likely ones have next to no
    weight in it: the adversary may know among ten whom it sees. The penalty of a record is

    .. math:: F = KL(u_{LU} \,\|\, p_{LU}) + KL(u_L \,\|\, p_L) + KL(u_U \,\|\, p_U),

    which is 0 for the uniform prediction alone. To split the classes and to ask for confusion among the
    similar ones apart from the dissimilar ones is Klein and Nabi's ("Learning private representations with
    focal entropy", 2021; "Learning private representations through entropy-based adversarial training",
    2025); the weights by the chain rule are ours, and similar is what the adversary confuses, now.

    The rest is as in maximum entropy: the mean over the adversaries, each held constant, and
    ``sum_m CE(a_m(sg z), s)`` by which they learn.
    """

    Options: ClassVar[type[DefenseOptions]] = FocalEntropyOptions
    options: FocalEntropyOptions

    def penalty(self, batch: DefenseBatch) -> Tensor:
        """The mean focal divergence of the adversaries, summed over the secrets: ``(B,)``."""
        divergences = []
        for answers, labels in zip(self.held(batch), batch.sensitive_labels, strict=True):
            terms = [focal_divergence(logits, labels, self.options.likely) for logits in answers]
            divergences.append(mean_over_adversaries(terms) * (labels != UNKNOWN_LABEL))
        return torch.stack(divergences).sum(0)


def focal_divergence(logits: Tensor, labels: Tensor, likely: int) -> Tensor:
    """The penalty F in nats: ``(B, K)`` to ``(B,)``, at least 0, 0 where uniform.

    Args:
        logits: ``(B, K)``.
        labels: int64 ``(B,)``, in [0, K); what is said of a record without a label means nothing.
        likely: Size of L; K or more: all classes, and the penalty is ``KL(uniform || p)``.
    """
    classes = logits.shape[1]
    log_p = F.log_softmax(logits, dim=1)
    if likely >= classes:
        return -log_p.mean(1) - math.log(classes)
    ranks = log_p.detach().scatter(1, labels.clamp_min(0)[:, None], torch.inf)
    chosen = torch.zeros_like(log_p, dtype=torch.bool).scatter(1, ranks.topk(likely, dim=1).indices, True)
    total = torch.zeros(len(logits), dtype=log_p.dtype, device=log_p.device)
    for group, size in ((chosen, likely), (~chosen, classes - likely)):
        mass = log_p.masked_fill(~group, -torch.inf).logsumexp(1)
        inside = torch.where(group, log_p, 0).sum(1) / size - mass
        between = size / classes * (math.log(size / classes) - mass)
        total = total + between - inside - math.log(size)
    return total
