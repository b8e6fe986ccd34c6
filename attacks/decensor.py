"""Attribute attacker with the edge's weights: releases are translated back to features nobody censored."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.edge_copy import RetrainedEdge, RetrainPlan, pixels, retrain_edge
from privhier.attacks.parts.fitting import (
    apply_in_blocks,
    take,
)
from privhier.attacks.parts.fresh_noise import (
    Candidate,
    FreshPlan,
    FreshReleases,
    feature_translator,
    train_classifier,
)
from privhier.attacks.parts.selection import AttributeProblem, pose_attribute
from privhier.attacks.refusals import attribute_refusal, label_refusal, white_box_refusal
from privhier.attacks.view import FloatArray, View
from privhier.config.choices import option
from privhier.models.exits import Exit
from privhier.seeding import isolated_rng


class Translator(nn.Module):
    """Releases ``(b, T, *shape)`` to uncensored features in units of their spread, and to the target.

    Attributes:
        translate: The network under training.
        head: Classifies uncensored features.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, translate: nn.Module, head: Exit, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.translate = translate
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, releases: Tensor) -> Tensor:
        """Logits ``(b, K)`` of the head on translated features."""
        return torch.as_tensor(self.head(self.translate(releases) * self.spread + self.mean))


@attacks.register("decensor")
@dataclass(frozen=True)
class DecensorAttack(Attack):
    """De-censoring (Song and Shmatikov, 2020, section 3.3).

    The last stage of an edge copy is retrained on the auxiliary images to tell the target: its features
    are what the edge's would be, had nobody censored them. A network then learns, on releases with
    fresh noise, to translate what is released into those features, which the retrained head
    classifies. Two losses are tried: the features' squared error alone, as in the paper, and that plus
    the head's cross-entropy (the head then adapts to the features' blur).

    Attributes:
        target: Attribute under attack.
        stages: Stages of the edge copy's trunk that are retrained.
        retrain_epochs: Most epochs of the edge copy.
        class_weights: Weights of the cross-entropy beside the squared error that are tried.
        learning_rate: Peak rate of AdamW.
        epochs: Most epochs of the translation.
        patience: Epochs without a better own-validation score before it stops.
        batch: Records a step.
        width: Half the translator's channels on maps; an eighth of its width on vectors.
        max_gmacs: Bound on the forward cost of training each network, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "attribute"
    white_box: ClassVar[bool] = True
    stages: int = option(1, low=1)
    retrain_epochs: int = option(12, low=1)
    class_weights: tuple[float, ...] = option((0.0, 1.0), low=0.0)
    learning_rate: float = option(2e-3, low=1e-7)
    epochs: int = option(30, low=1)
    patience: int = option(10, low=1)
    batch: int = option(64, low=2)
    width: int = option(32, low=4)
    max_gmacs: int = option(400, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return white_box_refusal(view) or label_refusal(view) or attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, "decensor")
        plan = RetrainPlan(
            stages=self.stages,
            hidden=64,
            epochs=self.retrain_epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            max_gmacs=self.max_gmacs,
        )
        retrained = retrain_edge(view, problem, plan, name="decensor")
        images = pixels(view.aux.images[problem.split.train])
        uncensored = apply_in_blocks(retrained.features, images, view.device).numpy()
        noise = FreshReleases(view, "decensor", self.target)
        held_out = noise.held_out(problem.split.validation)
        candidates = [
            self._translate(view, problem, noise, held_out, retrained, uncensored, number)
            for number in range(len(self.class_weights))
        ]
        best, chosen = max(candidates, key=lambda candidate: candidate[0].score)
        return problem.result(
            validation=best.held_out,
            victims=best.victims,
            selected={"class_weight": chosen, "uncensored": round(retrained.score, 4)},
            queries=noise.queries,
        )

    def _translate(
        self,
        view: View,
        problem: AttributeProblem,
        noise: FreshReleases,
        held_out: FloatArray,
        retrained: RetrainedEdge,
        uncensored: FloatArray,
        number: int,
    ) -> tuple[Candidate, float]:
        """The trained translation, and its weight of the cross-entropy."""
        train, device, weight = problem.split.train, view.device, self.class_weights[number]
        stream = (view.seed, "attack", "decensor", self.target, number)
        labels = torch.from_numpy(np.array(problem.labels[train]))
        mean, spread = _constants(uncensored)
        wanted = ((uncensored - mean) / spread).astype(np.float32)
        with isolated_rng(*stream):
            network = Translator(
                feature_translator(held_out, uncensored.shape[1:], self.width),
                copy.deepcopy(retrained.head),
                torch.from_numpy(mean),
                torch.from_numpy(spread),
            ).to(device)

            def loss(epoch: int, positions: Tensor) -> Tensor:
                rows = positions.numpy()
                releases = noise.batch(train[rows], epoch, number)
                features = network.translate(releases)
                error = nn.functional.mse_loss(features, take(wanted, rows, device))
                if weight == 0:
                    return error
                logits = network.head(features * network.spread + network.mean)
                return error + weight * nn.functional.cross_entropy(logits, labels[positions].to(device))

            plan = FreshPlan(self.epochs, self.batch, self.learning_rate, self.patience, self.max_gmacs)
            made = train_classifier(network, view, problem, held_out, plan, loss, *stream, "order")
            return made, weight


def _constants(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and spread ``(1, *shape)`` of features: of every value of a vector, of every channel of a map."""
    axes = (0,) if features.ndim == 2 else (0, 2, 3)
    mean = features.mean(axis=axes, dtype=np.float64, keepdims=True)
    spread = features.std(axis=axes, dtype=np.float64, keepdims=True)
    # A value that never moves is worth no effort: its error is measured in units of the others'.
    spread = np.maximum(spread, max(1e-6, 1e-2 * float(spread.mean())))
    return mean.astype(np.float32), spread.astype(np.float32)
