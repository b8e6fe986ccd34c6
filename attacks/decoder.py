"""Reconstruction attacker: a supervised decoder from releases to images, trained on the auxiliary set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.decoding import DecoderPlan, decode_victims
from privhier.attacks.view import View
from privhier.config.choices import option


@attacks.register("decoder")
@dataclass(frozen=True)
class DecoderAttack(Attack):
    """Linear sub-pixel start in closed form plus a residual network, on L1 + MSE + SSIM loss.

    A fresh draw every epoch; the epoch is chosen on the attacker's own validation split (a linear
    start that is never beaten stays). T releases are stacked as channels beside their mean. Only
    the victims in the view are reconstructed.

    Attributes:
        target: Unused; reconstruction has no target attribute.
        width: Channels of the residual network (halved on maps over 256 positions).
        blocks: Residual blocks.
        learning_rate: Peak rate of AdamW.
        epochs: Most epochs.
        batch: Records a step.
        max_gmacs: Bound on the forward cost of training, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "reconstruction"
    width: int = option(64, low=4)
    blocks: int = option(3, low=1)
    learning_rate: float = option(2e-3, low=1e-7)
    epochs: int = option(30, low=1)
    batch: int = option(32, low=2)
    max_gmacs: int = option(1200, low=1)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        plan = DecoderPlan(
            self.width, self.blocks, self.learning_rate, self.epochs, self.batch, self.max_gmacs
        )
        made = decode_victims(view, plan)
        return AttackResult(
            reconstructions=made.images,
            own_loss=made.own_loss,
            validation=made.validation,
            selected={"epoch": made.epoch, "epochs": made.epochs},
            queries=made.queries,
        )
