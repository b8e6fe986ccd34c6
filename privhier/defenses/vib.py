"""Variational information bottleneck (Alemi and others, 2017): releases that say little at all."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from privhier.defenses.base import DefenseBatch, defenses, task_loss_per_record
from privhier.defenses.nats import SAID, GaussianBottleneck, nats, shown


@defenses.register("vib")
class VariationalInformationBottleneck(GaussianBottleneck):
    r"""The edge pays for all that its release says of a record, in nats.

    :math:`\beta \lVert f_i \rVert^2 / (2 \sigma^2)` is added to the task's cross-entropy: the divergence of
    the release from noise alone, whose mean bounds :math:`I(Z; X)`, and with it what one release says of any
    secret. The conditional bottleneck (``ceb``) with its means at 0. The variance is the release's own and
    not trained, and the marginal's is the same.
    """

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy, and the price of what is said: ``(B,)``."""
        assert batch.clipped is not None
        price = self.options.weight * batch.strength * nats(batch.clipped, 0.0, self.sigma_of(batch))
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch) + price

    def report(self, batch: DefenseBatch) -> dict[str, Any]:
        """The bound of any secret in nats, estimated on these records; nothing without Gaussian noise."""
        assert batch.clipped is not None
        if not batch.sigma:
            return {}
        mean = float(nats(batch.clipped.double(), 0.0, batch.sigma).mean())
        return {SAID.format("of anything "): shown(mean)}
