"""Attribute attacker with the edge's weights: its own networks, fine-tuned on releases with fresh noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.edge_copy import RetrainPlan, pixels, retrain_edge
from privhier.attacks.parts.edge_exits import AveragedExits, own_exit, reading, renewed_exit
from privhier.attacks.parts.fitting import class_probabilities, take
from privhier.attacks.parts.fresh_noise import (
    Candidate,
    FreshPlan,
    FreshReleases,
    fresh_classifier,
    train_classifier,
)
from privhier.attacks.parts.selection import AttributeProblem, pose_attribute
from privhier.attacks.parts.white_box import weights_of
from privhier.attacks.refusals import attribute_refusal, label_refusal, white_box_refusal
from privhier.attacks.view import FloatArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng


def _mean(probabilities: list[FloatArray]) -> FloatArray:
    return np.asarray(np.mean(probabilities, axis=0), dtype=np.float32)


@dataclass(frozen=True)
class _Start:
    """A trained start: which one, how the report names it, and what it says."""

    start: str
    name: str
    made: Candidate


@attacks.register("fine_tune")
@dataclass(frozen=True)
class FineTuneAttack(Attack):
    """Several starts, trained on releases with fresh noise in every batch; the best is used.

    Starts: the edge's own exit for the target, where it has one; the hidden layers of such an exit (else
    of its first exit) under a new last layer; a new network on all T releases side by side. The best
    start is trained once more on the verdicts of a retrained edge copy that saw the auxiliary images
    themselves (distillation: Hinton, Vinyals and Dean, 2015). The average of all candidates is one more.

    Attributes:
        target: Attribute under attack.
        learning_rate: Peak rate of AdamW.
        epochs: Most epochs of a start.
        patience: Epochs without a better own-validation score before a start stops.
        batch: Records a step.
        width: Channels of the new network's first stage on maps; an eighth of its width on vectors.
        teacher_epochs: Most epochs of the edge copy that teaches; 0: no teacher.
        teacher_weight: Share of the teacher's verdict in the labels of the last candidate.
        max_gmacs: Bound on the forward cost of training each network, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "attribute"
    white_box: ClassVar[bool] = True
    learning_rate: float = option(2e-3, low=1e-7)
    epochs: int = option(30, low=1)
    patience: int = option(10, low=1)
    batch: int = option(64, low=2)
    width: int = option(32, low=4)
    teacher_epochs: int = option(8, low=0)
    teacher_weight: float = option(0.5, low=0.0, high=1.0)
    max_gmacs: int = option(400, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return white_box_refusal(view) or label_refusal(view) or attribute_refusal(view, self.target)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        problem = pose_attribute(view, self.target, "fine_tune")
        noise = FreshReleases(view, "fine_tune", self.target)
        held_out = noise.held_out(problem.split.validation)
        train = problem.split.train
        known = np.eye(problem.n_classes, dtype=np.float32)[problem.labels[train]]
        names = ("own exit", "hidden layers", "new network")
        made = [self._fit(view, problem, noise, held_out, name, known) for name in names]
        candidates = [candidate for candidate in made if candidate is not None]
        if self.teacher_epochs:
            plan = RetrainPlan(
                stages=2,
                hidden=64,
                epochs=self.teacher_epochs,
                batch=self.batch,
                learning_rate=self.learning_rate,
                max_gmacs=self.max_gmacs,
            )
            teacher = retrain_edge(view, problem, plan, name="fine_tune")
            verdicts = class_probabilities(teacher, pixels(view.aux.images[train]), view.device)
            soft = (1 - self.teacher_weight) * known + self.teacher_weight * verdicts
            base = max(candidates, key=lambda candidate: candidate.made.score).start
            taught = self._fit(view, problem, noise, held_out, base, soft, taught=True)
            candidates += [taught] if taught is not None else []
        own = _mean([candidate.made.held_out for candidate in candidates])
        victims = _mean([candidate.made.victims for candidate in candidates])
        average = Candidate(problem.score(own), 0, own, victims)
        candidates.append(_Start("", "average of all candidates", average))
        best = max(candidates, key=lambda candidate: candidate.made.score)
        return problem.result(
            validation=best.made.held_out,
            victims=best.made.victims,
            selected={"network": best.name},
            queries=noise.queries,
        )

    def _network(self, view: View, name: str, held_out: FloatArray, n_classes: int) -> nn.Module | None:
        if name == "new network":
            return fresh_classifier(held_out, n_classes, self.width)
        make = own_exit if name == "own exit" else renewed_exit
        heads = [reading(make(edge, self.target, n_classes), edge) for edge in weights_of(view).edges]
        exits = [head for head in heads if head is not None]
        return AveragedExits(exits) if len(exits) == len(heads) else None

    def _fit(
        self,
        view: View,
        problem: AttributeProblem,
        noise: FreshReleases,
        held_out: FloatArray,
        name: str,
        labels: FloatArray,
        *,
        taught: bool = False,
    ) -> _Start | None:
        """Train one start on labels ``(n_train, K)``; None where the edge has no such exit."""
        stream = (view.seed, "attack", "fine_tune", self.target, name, int(taught))
        train, device = problem.split.train, view.device
        with isolated_rng(*stream):
            network = self._network(view, name, held_out, problem.n_classes)
            if network is None:
                return None
            network.to(device)

            def loss(epoch: int, positions: Tensor) -> Tensor:
                rows = positions.numpy()
                logits = network(noise.batch(train[rows], epoch, name + taught * ", taught"))
                return nn.functional.cross_entropy(logits, take(labels, rows, device))

            plan = FreshPlan(self.epochs, self.batch, self.learning_rate, self.patience, self.max_gmacs)
            made = train_classifier(network, view, problem, held_out, plan, loss, *stream, "order")
            return _Start(name, f"{name}{taught * ', taught'}, epoch {made.epoch}", made)
