"""Attribute attacker: a multilayer perceptron on columns, trained on a fresh draw every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.features import FeatureBank
from privhier.attacks.parts.fitting import FitPlan, class_probabilities, fit, take
from privhier.attacks.parts.nets import perceptron
from privhier.attacks.parts.search import LogUniform, OneOf, Range, random_settings
from privhier.attacks.parts.selection import SCORED_DRAWS, pose_attribute
from privhier.attacks.refusals import attribute_refusal
from privhier.attacks.view import FloatArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, torch_stream


@attacks.register("mlp")
@dataclass(frozen=True)
class MlpAttack(Attack):
    """Two hidden layers; width, dropout and rate selected; the average of all candidates is one more.

    Attributes:
        target: Attribute under attack.
        widths: Hidden widths tried, pairwise with ``dropouts`` and ``learning_rates``.
        dropouts: Dropout probabilities.
        learning_rates: Peak rates of AdamW.
        trials: Random settings of the three tried beside them.
        epochs: Most epochs of a candidate; each sees one draw of every training record.
        patience: Epochs without a better own-validation score before a candidate stops.
        batch: Records a step.
        max_columns: Principal components kept of a wider release.
    """

    kind: ClassVar[Kind] = "attribute"
    widths: tuple[int, ...] = option((64, 256, 256), low=2)
    dropouts: tuple[float, ...] = option((0.1, 0.5, 0.2), low=0.0, high=0.95)
    learning_rates: tuple[float, ...] = option((3e-3, 1e-3, 1e-3), low=1e-7)
    trials: int = option(1, low=0)
    epochs: int = option(32, low=1)
    patience: int = option(10, low=1)
    batch: int = option(128, low=2)
    max_columns: int = option(256, low=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.widths) == len(self.dropouts) == len(self.learning_rates):
            raise ValueError("widths, dropouts and learning_rates must be equally long: tried pairwise")

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return attribute_refusal(view, self.target)

    def _settings(self, view: View) -> list[tuple[int, float, float]]:
        """Width, dropout and rate of every candidate: the given ones, then the random ones."""
        space: dict[str, Range] = {
            "width": OneOf((32, 64, 128, 256, 512)),
            "dropout": OneOf((0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
            "rate": LogUniform(3e-4, 1e-2),
        }
        drawn = random_settings(view, "mlp", self.target, space, self.trials)
        given = list(zip(self.widths, self.dropouts, self.learning_rates, strict=True))
        return given + [(s["width"], s["dropout"], s["rate"]) for s in drawn]

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, "mlp")
        bank = FeatureBank(view, max_columns=self.max_columns, name="mlp")
        train = problem.split.train
        labels = torch.from_numpy(np.array(problem.labels[train]))
        scored = min(bank.draws, SCORED_DRAWS)
        held_out = bank.rows(problem.split.validation, scored)
        candidates: list[tuple[float, str, FloatArray, FloatArray]] = []
        for number, (width, dropout, rate) in enumerate(self._settings(view)):
            generator = torch_stream(view.seed, "attack", "mlp", self.target, number)
            with isolated_rng(view.seed, "attack", "mlp", self.target, number):
                network = perceptron(bank.columns, width, problem.n_classes, dropout).to(view.device)

                def loss(epoch: int, positions: Tensor, network: nn.Module = network) -> Tensor:
                    rows = take(bank.draw(epoch), train[positions.numpy()], view.device)
                    return nn.functional.cross_entropy(network(rows), labels[positions].to(view.device))

                def score(network: nn.Module = network) -> float:
                    return problem.score(class_probabilities(network, held_out, view.device))

                value, epoch = fit(
                    network,
                    FitPlan(self.epochs, self.batch, rate, 0.01, self.patience),
                    records=len(train),
                    loss=loss,
                    score=score,
                    generator=generator,
                )
                own = class_probabilities(network, held_out, view.device)
                victims = class_probabilities(network, bank.victims, view.device)
            candidates.append(
                (value, f"width {width}, dropout {dropout}, rate {rate}, epoch {epoch}", own, victims)
            )
        if len(candidates) > 1:
            own = np.mean([c[2] for c in candidates], axis=0)
            victims = np.mean([c[3] for c in candidates], axis=0)
            candidates.append((problem.score(own), "average of all candidates", own, victims))
        _, name, own, victims = max(candidates, key=lambda candidate: candidate[0])
        return problem.result(
            validation=own,
            victims=victims,
            selected={"network": name},
            queries=bank.queries,
        )
