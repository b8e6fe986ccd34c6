"""Verification of unknown people: a metric learned on the auxiliary people, compared by cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.features import FeatureBank, LastDraw
from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, apply_in_blocks, fit, take
from privhier.attacks.parts.metrics import CosineHead, linear_metrics
from privhier.attacks.parts.nets import channel_norm, jitter, perceptron, stack_releases, trunk
from privhier.attacks.parts.people import split_people, unit_rows, verification_auc
from privhier.attacks.parts.selection import OwnSplit
from privhier.attacks.refusals import label_refusal, map_refusal, people_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, numpy_stream, torch_stream


@attacks.register("metric")
@dataclass(frozen=True)
class MetricAttack(Attack):
    """Several metrics learned on auxiliary people; the best on its own held-out people is used.

    Candidates: cosine on principal components (standardized, whitened, or with their spread),
    discriminant metrics with shrinkage, a perceptron and, on maps, a convolutional embedding
    trained to name the auxiliary people, and the sum of the best closed form and the best network.
    Selection is by verification AUC over all pairs of held-out people.

    Attributes:
        target: ``identity``, or empty.
        max_columns: Principal components kept of a wider release.
        max_rows: Rows (draws of records) a closed-form metric is fitted on.
        embedding: Size E of the networks' embeddings.
        epochs: Most epochs of a network; 0 leaves the networks out.
        patience: Epochs without a better own-validation score before stopping.
        batch: Records a step.
        max_gmacs: Bound on a network's forward cost in training, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "verification"
    max_columns: int = option(192, low=2)
    max_rows: int = option(16_000, low=100)
    embedding: int = option(64, low=2)
    epochs: int = option(30, low=0)
    patience: int = option(8, low=1)
    batch: int = option(64, low=2)
    max_gmacs: int = option(400, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return label_refusal(view) or people_refusal(view)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        people = view.aux.labels["identity"]
        split = split_people(view, numpy_stream(view.seed, "attack", "metric", "split"))
        bank = FeatureBank(view, max_columns=self.max_columns, name="metric")
        held_out, held_people = bank.draw(0)[split.validation], people[split.validation]
        repeats = int(np.clip(self.max_rows // max(1, len(split.train)), 1, bank.draws))
        columns, names = bank.rows(split.train, repeats), np.tile(people[split.train], repeats)
        scored = [
            (verification_auc(held_out @ metric(columns, names), held_people), name, metric)
            for name, metric in linear_metrics(bank.spread, repeats)
        ]
        value, name, metric = max(scored, key=lambda candidate: candidate[0])
        own = unit_rows(held_out @ metric(columns, names))
        everyone = np.flatnonzero(people >= 0)
        matrix = metric(bank.rows(everyone, repeats), np.tile(people[everyone], repeats))
        victims = unit_rows(bank.victims @ matrix)
        for kind in ("perceptron", "convolutional") if self.epochs else ():
            if kind == "convolutional" and map_refusal(view) is not None:
                continue
            made = self._network(view, bank, split, kind)
            if made is None:
                continue
            options = [(kind, *made)]
            options += [
                (
                    f"{name} + {weight} {kind}",
                    np.hstack([own, weight * made[0]]),
                    np.hstack([victims, weight * made[1]]),
                )
                for weight in (0.5, 1.0)
            ]
            for label, embedded, attacked in options:
                auc = verification_auc(embedded, held_people)
                if auc > value:
                    value, name, own, victims = auc, label, unit_rows(embedded), unit_rows(attacked)
        return AttackResult(
            embeddings=np.asarray(victims, dtype=np.float32),
            validation=value,
            selected={"metric": name},
            queries=bank.queries,
        )

    def _network(
        self, view: View, bank: FeatureBank, split: OwnSplit, kind: str
    ) -> tuple[FloatArray, FloatArray] | None:
        """Unit embeddings (n, E) of the validation records and the victims, or None if too few people."""
        people, device = view.aux.labels["identity"], view.device
        unique, counts = np.unique(people[split.train], return_counts=True)
        train = split.train[np.isin(people[split.train], unique[counts >= 2])]
        classes, codes = np.unique(people[train], return_inverse=True)
        if len(classes) < 4:
            return None
        labels = torch.from_numpy(codes.astype(np.int64))
        maps = kind == "convolutional"
        flip = maps and view.releases.shape[2:] == view.image_shape
        generator = torch_stream(view.seed, "attack", "metric", kind)

        drawn = LastDraw(view.aux) if maps else None

        def rows(k: int, indices: IntArray) -> FloatArray:
            return bank.draw(k)[indices] if drawn is None else stack_releases(drawn(k)[indices])

        held_out = rows(0, split.validation)
        with isolated_rng(view.seed, "attack", "metric", kind):
            if maps:
                layers, size = trunk(held_out.shape[1], max(held_out.shape[2:]), 16)
                body = nn.Sequential(channel_norm(held_out), *layers, nn.Linear(size, self.embedding))
            else:
                body = perceptron(bank.columns, 256, self.embedding, 0.3)
            network = CosineHead(body, self.embedding, len(classes)).to(device)
            epochs = affordable_epochs(
                network, take(held_out, [0], device), len(train), self.epochs, self.max_gmacs
            )

            def loss(epoch: int, positions: Tensor) -> Tensor:
                x = torch.from_numpy(rows(epoch, train[positions.numpy()])).to(device)
                x = jitter(x, generator, flip=flip) if maps else x
                return nn.functional.cross_entropy(
                    network(x), labels[positions].to(device), label_smoothing=0.1
                )

            def embed(x: Tensor) -> Tensor:
                both = network.embed(x) + network.embed(x.flip(-1)) if flip else network.embed(x)
                return nn.functional.normalize(both, dim=1)

            def score() -> float:
                return verification_auc(
                    apply_in_blocks(embed, held_out, device).numpy(), people[split.validation]
                )

            plan = FitPlan(epochs, self.batch, 2e-3, 0.05, self.patience)
            fit(network, plan, records=len(train), loss=loss, score=score, generator=generator)
            victims = stack_releases(view.releases) if maps else bank.victims
            return (
                apply_in_blocks(embed, held_out, device).numpy(),
                apply_in_blocks(embed, victims, device).numpy(),
            )
