"""A copy of the edge retrained on the attacker's own images: what the weights know, turned on the target."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, class_probabilities, fit
from privhier.attacks.parts.selection import AttributeProblem
from privhier.attacks.parts.white_box import own_copy
from privhier.attacks.view import FloatArray, ImageArray, View
from privhier.models.exits import Exit
from privhier.models.inputs import augment, normalize
from privhier.seeding import isolated_rng, torch_stream


class RetrainedEdge(nn.Module):
    """Frozen first stages of an edge copy, trainable rest, bottleneck, and a head for the target.

    Attributes:
        score: Own-validation score of the epoch that was kept; set by ``retrain_edge``.
    """

    score: float = float("nan")

    def __init__(self, view: View, n_classes: int, trainable: int, hidden: int) -> None:
        super().__init__()
        edge = own_copy(view)
        # A trunk that is one module cannot be parted: it is retrained whole.
        stages = list(edge.trunk.named_children()) if isinstance(edge.trunk, nn.Sequential) else []
        stages = stages or [("trunk", edge.trunk)]
        cut = max(0, len(stages) - trainable)
        self.frozen = nn.Sequential(OrderedDict(stages[:cut]))
        self.retrained = nn.Sequential(OrderedDict(stages[cut:]))
        self.bottleneck = edge.bottleneck
        self.head = Exit(edge.feature_shape, n_classes, hidden)
        for parameter in self.frozen.parameters():
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> RetrainedEdge:
        """Training mode, but for the frozen stages, whose statistics stay as they are."""
        super().train(mode)
        self.frozen.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Pixels ``(b, 3, H, W)`` in 0..255 to uncensored features ``(b, *feature_shape)``."""
        with torch.no_grad():
            # normalize() works in place where pixels are floats already.
            x = self.frozen(normalize(images.clone()))
        return torch.as_tensor(self.bottleneck(self.retrained(x)))

    def forward(self, images: Tensor) -> Tensor:
        """Pixels ``(b, 3, H, W)`` in 0..255 to logits ``(b, K)``."""
        return torch.as_tensor(self.head(self.features(images)))


@dataclass(frozen=True)
class RetrainPlan:
    """How an edge copy is retrained.

    Attributes:
        stages: Stages of the trunk that are retrained, counted from the cut; the bottleneck always is.
        hidden: Hidden width of the head.
        epochs: Most epochs over the auxiliary images, shifted and mirrored at random.
        batch: Images a step.
        learning_rate: Peak rate of AdamW.
        max_gmacs: Bound on the forward cost of training, in 10^9 multiply-accumulates.
    """

    stages: int
    hidden: int
    epochs: int
    batch: int
    learning_rate: float
    max_gmacs: int


def retrain_edge(view: View, problem: AttributeProblem, plan: RetrainPlan, *, name: str) -> RetrainedEdge:
    """A copy of the last edge state, retrained to tell the target; evaluation mode.

    Args:
        view: Gives weights, images and seed.
        problem: Labels and own split: trained on its training images, the epoch chosen on the rest.
        plan: See ``RetrainPlan``.
        name: Name of the attack, for its random stream.
    """
    images, train, device = view.aux.images, problem.split.train, view.device
    labels = torch.from_numpy(np.array(problem.labels[train]))
    generator = torch_stream(view.seed, "attack", name, problem.target, "retrained edge")
    held_out = pixels(images[problem.split.validation])
    with isolated_rng(view.seed, "attack", name, problem.target, "retrained edge"):
        network = RetrainedEdge(view, problem.n_classes, plan.stages, plan.hidden).to(device)
        example = torch.from_numpy(held_out[:1]).to(device)
        epochs = affordable_epochs(network, example, len(train), plan.epochs, plan.max_gmacs)

        def loss(_: int, positions: Tensor) -> Tensor:
            x = torch.from_numpy(pixels(images[train[positions.numpy()]]))
            moved = augment(x, True, max(1, x.shape[-1] // 12), generator).to(device)
            return nn.functional.cross_entropy(network(moved), labels[positions].to(device))

        def score() -> float:
            return problem.score(class_probabilities(network, held_out, device))

        network.score, _ = fit(
            network,
            FitPlan(epochs, plan.batch, plan.learning_rate, 0.01, epochs),
            records=len(train),
            loss=loss,
            score=score,
            generator=generator,
        )
    return network


def pixels(images: ImageArray) -> FloatArray:
    """uint8 images as float32, still in 0..255."""
    return np.asarray(images, dtype=np.float32)
