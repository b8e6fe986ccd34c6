"""Verification with the edge's weights: embeddings of releases, learned on people with fresh noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.base import Attack, AttackResult, Kind, attacks
from privhier.attacks.parts.edge_exits import AveragedExits, reading, renewed_exit
from privhier.attacks.parts.features import FeatureMap
from privhier.attacks.parts.fitting import FitPlan, affordable_epochs, apply_in_blocks, fit, take
from privhier.attacks.parts.fresh_noise import FreshReleases, fresh_classifier
from privhier.attacks.parts.metrics import CosineHead, linear_metrics
from privhier.attacks.parts.people import split_people, unit_rows, verification_auc
from privhier.attacks.parts.selection import OwnSplit
from privhier.attacks.parts.white_box import weights_of
from privhier.attacks.refusals import label_refusal, people_refusal, white_box_refusal
from privhier.attacks.view import FloatArray, IntArray, View
from privhier.config.choices import option
from privhier.seeding import isolated_rng, numpy_stream, torch_stream

_NAME = "fine_tune_metric"
_SHARES = (0.5, 1.0)
"""Weights of a network beside the best closed form that are tried."""


@dataclass(frozen=True)
class _Embedded:
    """A metric, as an attacker chooses among several.

    Attributes:
        name: How the report names it.
        score: Verification AUC on the attacker's own held-out people.
        own: Unit embeddings of held-out draws, float32 ``(draws * m, E)``.
        victims: Unit embeddings of the victims, float32 ``(n, E)``.
    """

    name: str
    score: float
    own: FloatArray
    victims: FloatArray


@attacks.register(_NAME)
@dataclass(frozen=True)
class FineTuneMetricAttack(Attack):
    """Several metrics, learned on auxiliary people with fresh noise in every batch; the best is used.

    Candidates: the closed forms of ``metric``, fitted on many more releases of every photo than an attacker
    without the weights owns; the hidden layers of the edge's own first exit, fine-tuned to name the auxiliary
    people; a new network on all T releases side by side, trained so as well; sums of the best closed form and
    each network. Selection is by verification AUC over the pairs of held-out people, its mean over several
    draws of their photos.

    Attributes:
        target: ``identity``, or empty.
        draws: Most fresh releases of every photo that closed forms are fitted on.
        max_columns: Principal components kept of a wider release, for closed forms.
        max_rows: Rows (draws of photos) a closed form is fitted on.
        embedding: Size E of the networks' embeddings.
        learning_rate: Peak rate of AdamW.
        epochs: Most epochs of a network; 0 leaves the networks out.
        patience: Epochs without a better own-validation score before stopping.
        batch: Records a step.
        width: Channels of the new network's first stage on maps; an eighth of its width on vectors.
        max_gmacs: Bound on a network's forward cost in training, in 10^9 multiply-accumulates.
    """

    kind: ClassVar[Kind] = "verification"
    white_box: ClassVar[bool] = True
    draws: int = option(16, low=1)
    max_columns: int = option(192, low=2)
    max_rows: int = option(32_000, low=100)
    embedding: int = option(64, low=2)
    learning_rate: float = option(2e-3, low=1e-7)
    epochs: int = option(30, low=0)
    patience: int = option(10, low=1)
    batch: int = option(64, low=2)
    width: int = option(32, low=4)
    max_gmacs: int = option(400, low=1)

    def refuses(self, view: View) -> str | None:
        """See ``Attack``."""
        return white_box_refusal(view) or label_refusal(view) or people_refusal(view)

    def run(self, view: View) -> AttackResult:
        """See ``Attack``."""
        people = view.aux.labels["identity"]
        split = split_people(view, numpy_stream(view.seed, "attack", _NAME, "split"))
        noise = FreshReleases(view, _NAME)
        held_out, names = noise.held_out(split.validation), people[split.validation]
        closed = self._closed_form(view, split, noise, held_out)
        made = [closed]
        for start in ("hidden layers", "new network") if self.epochs else ():
            network = self._network(view, split, noise, held_out, start)
            if network is not None:
                made += [network, *_sums(closed, network, names)]
        best = max(made, key=lambda one: one.score)
        return AttackResult(
            embeddings=np.asarray(best.victims, dtype=np.float32),
            validation=best.score,
            selected={"metric": best.name},
            queries=noise.queries,
        )

    def _closed_form(
        self, view: View, split: OwnSplit, noise: FreshReleases, held_out: FloatArray
    ) -> _Embedded:
        """The best metric that has a closed form, chosen on held-out people and fitted on everyone."""
        people = view.aux.labels["identity"]
        columns_of = FeatureMap(view, max_columns=self.max_columns, name=_NAME)
        most = 1 if weights_of(view).mechanism.deterministic else self.draws
        repeats = int(np.clip(self.max_rows // max(1, len(split.train)), 1, most))

        def drawn(rows: IntArray) -> tuple[FloatArray, IntArray]:
            columns = [columns_of(noise(rows, "closed form", k)) for k in range(repeats)]
            return np.concatenate(columns), np.tile(people[rows], repeats)

        rows, owners = drawn(split.train)
        own, victims = columns_of(held_out), columns_of(view.releases)
        spread = columns_of.spread / columns_of.spread.max()
        scored = []
        for name, metric in linear_metrics(spread, repeats):
            embedded = unit_rows(own @ metric(rows, owners))
            scored.append((_score(embedded, people[split.validation]), name, metric, embedded))
        value, name, metric, embedded = max(scored, key=lambda candidate: candidate[0])
        matrix = metric(*drawn(np.flatnonzero(people >= 0)))
        return _Embedded(name, value, embedded, unit_rows(victims @ matrix))

    def _body(self, view: View, start: str, held_out: FloatArray) -> nn.Module | None:
        """A network from releases ``(b, T, *shape)`` to ``(b, E)``; None where the edge has no exit."""
        if start == "new network":
            return fresh_classifier(held_out, self.embedding, self.width)
        edges = weights_of(view).edges
        heads = [reading(renewed_exit(edge, self.target, self.embedding), edge) for edge in edges]
        exits = [head for head in heads if head is not None]
        return AveragedExits(exits) if len(exits) == len(heads) else None

    def _network(
        self, view: View, split: OwnSplit, noise: FreshReleases, held_out: FloatArray, start: str
    ) -> _Embedded | None:
        """Trained to name the auxiliary people with two photos; None where there are too few, or no start."""
        people, device = view.aux.labels["identity"], view.device
        unique, counts = np.unique(people[split.train], return_counts=True)
        train = split.train[np.isin(people[split.train], unique[counts >= 2])]
        classes, codes = np.unique(people[train], return_inverse=True)
        if len(classes) < 4:
            return None
        labels = torch.from_numpy(codes.astype(np.int64))
        stream = (view.seed, "attack", _NAME, start)
        with isolated_rng(*stream):
            body = self._body(view, start, held_out)
            if body is None:
                return None
            network = CosineHead(body, self.embedding, len(classes)).to(device)
            example = take(held_out, [0], device)
            epochs = affordable_epochs(network, example, len(train), self.epochs, self.max_gmacs)

            def loss(epoch: int, positions: Tensor) -> Tensor:
                logits = network(noise.batch(train[positions.numpy()], epoch, start))
                return nn.functional.cross_entropy(logits, labels[positions].to(device), label_smoothing=0.1)

            def embedded(releases: FloatArray) -> FloatArray:
                return unit_rows(apply_in_blocks(network.embed, releases, device).numpy())

            value, epoch = fit(
                network,
                FitPlan(epochs, self.batch, self.learning_rate, 0.05, self.patience),
                records=len(train),
                loss=loss,
                score=lambda: _score(embedded(held_out), people[split.validation]),
                generator=torch_stream(*stream, "order"),
            )
            return _Embedded(f"{start}, epoch {epoch}", value, embedded(held_out), embedded(view.releases))


def _score(embedded: FloatArray, people: IntArray) -> float:
    """Mean verification AUC of draws stacked one after the other: no photo is compared with itself."""
    draws = embedded.reshape(-1, len(people), embedded.shape[1])
    return float(np.mean([verification_auc(one, people) for one in draws]))


def _sums(closed: _Embedded, network: _Embedded, people: IntArray) -> Iterator[_Embedded]:
    """Both side by side: their cosines are added."""
    for share in _SHARES:
        own, victims = (
            unit_rows(np.hstack([one, share * other]))
            for one, other in ((closed.own, network.own), (closed.victims, network.victims))
        )
        yield _Embedded(f"{closed.name} + {share} {network.name}", _score(own, people), own, victims)
