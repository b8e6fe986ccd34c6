"""Attribute attacker on feature maps and raw images: a small convolutional network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.features import LastDraw
from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, class_probabilities, fit, take
from privhier.attacks.parts.nets import channel_norm, jitter, stack_releases, trunk
from privhier.attacks.parts.selection import SCORED_DRAWS, pose_attribute
from privhier.attacks.refusals import attribute_refusal, label_refusal, map_refusal
from privhier.attacks.view import FloatArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, torch_stream


@attacks.register("cnn")
@dataclass(frozen=True)
class CnnAttack(Attack):
    """A small residual network over maps (C, h, w); T releases are stacked as channels beside their mean.

    Trained on a fresh draw every epoch, shifted at random, raw images also mirrored (and then
    predicted both ways round). The training epoch is chosen on the attacker's own validation split.

    Attributes:
        target: Attribute under attack.
        width: Channels of the first stage on images; maps of up to 24 pixels get twice as many.
        learning_rates: Peak rates of AdamW that are tried.
        weight_decay: AdamW's decay.
        dropout: Before the last layer.
        epochs: Most epochs of a candidate.
        patience: Epochs without a better own-validation score before stopping.
        batch: Records a step.
        max_gmacs: Bound on the forward cost of all training, in 10^9 multiply-accumulates; epochs
            are cut to it.
    """

    kind: ClassVar[Kind] = "attribute"
    width: int = option(16, low=4)
    learning_rates: tuple[float, ...] = option((2e-3,), low=1e-7)
    weight_decay: float = option(0.05, low=0.0)
    dropout: float = option(0.3, low=0.0, high=0.95)
    epochs: int = option(24, low=1)
    patience: int = option(10, low=1)
    batch: int = option(64, low=2)
    max_gmacs: int = option(600, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return label_refusal(view) or map_refusal(view) or attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, "cnn")
        train = problem.split.train
        drawn = LastDraw(view.aux)
        flip = view.releases.shape[2:] == view.image_shape
        labels = torch.from_numpy(np.array(problem.labels[train]))
        # T stacked releases of a wide map are large: 50 million values are enough to choose on.
        values = max(1, len(problem.split.validation) * view.releases[0].size)
        scored = int(np.clip(50_000_000 // values, 1, min(view.aux.draws, SCORED_DRAWS)))
        held_out = np.concatenate([stack_releases(drawn(k)[problem.split.validation]) for k in range(scored)])
        victims = stack_releases(view.releases)
        best: tuple[float, str, FloatArray, FloatArray] | None = None
        epochs = 0
        for number, rate in enumerate(self.learning_rates):
            generator = torch_stream(view.seed, "attack", "cnn", self.target, number)
            with isolated_rng(view.seed, "attack", "cnn", self.target, number):
                network = self._network(held_out, problem.n_classes).to(view.device)
                example = take(held_out, [0], view.device)
                share = self.max_gmacs // len(self.learning_rates)
                epochs = affordable_epochs(network, example, len(train), self.epochs, share)

                def predict(x: Tensor, network: nn.Module = network) -> Tensor:
                    logits: Tensor = network(x)
                    return (logits + network(x.flip(-1))) / 2 if flip else logits

                def loss(
                    epoch: int,
                    positions: Tensor,
                    network: nn.Module = network,
                    generator: torch.Generator = generator,
                ) -> Tensor:
                    rows = drawn(epoch)[train[positions.numpy()]]
                    maps = torch.from_numpy(stack_releases(rows)).to(view.device)
                    logits = network(jitter(maps, generator, flip=flip))
                    return nn.functional.cross_entropy(
                        logits, labels[positions].to(view.device), label_smoothing=0.05
                    )

                def score(predict: Callable[[Tensor], Tensor] = predict) -> float:
                    return problem.score(class_probabilities(predict, held_out, view.device))

                plan = FitPlan(epochs, self.batch, rate, self.weight_decay, self.patience)
                value, epoch = fit(
                    network, plan, records=len(train), loss=loss, score=score, generator=generator
                )
                if best is None or value > best[0]:
                    own = class_probabilities(predict, held_out, view.device)
                    name = f"rate {rate}, epoch {epoch} of {epochs}"
                    best = (value, name, own, class_probabilities(predict, victims, view.device))
        assert best is not None
        return problem.result(
            validation=best[2],
            victims=best[3],
            selected={"network": best[1]},
            queries=drawn.queries,
        )

    def _network(self, maps: FloatArray, n_classes: int) -> nn.Module:
        channels, size = maps.shape[1], max(maps.shape[2:])
        layers, features = trunk(channels, size, self.width if size > 24 else 2 * self.width)
        return nn.Sequential(
            channel_norm(maps), *layers, nn.Dropout(self.dropout), nn.Linear(features, n_classes)
        )
