"""What membership attackers are given: what a target and its shadow models say of every candidate.

Of a run trained here, with our own trainer and shadow models (``trained_case``), or drawn from Gaussians
where only the time of scoring is asked for (``drawn_case``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
from harness import Array, digest
from scene import CPU

from privhier.assessment.membership import choose_candidates, membership_view
from privhier.attacks.membership.shadows import QUERIES, ask_target, shadow_models, training_rows
from privhier.attacks.membership.view import MembershipView, Model, Population, Workshop
from privhier.config import parse_config
from privhier.datasets.load import load_dataset
from privhier.training.folder import RunFolder
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trainer import Trainer

SHADOWS = 12
PART = "tail"
CONFIG: dict[str, Any] = {
    "name": "peers",
    "dataset": {
        "name": "synthetic",
        "image_size": 32,
        "task": ["smiling"],
        "sensitive": ["male"],
        "options": {"images": 640, "identities": 320},
        "splits": {"train": 0.25, "val": 0.1, "aux": 0.35, "test": 0.3},
    },
    "model": {"backbone": "small_cnn", "cut": "stage2", "bottleneck": {"kind": "dimension", "size": 16}},
    "schedule": {"joint_epochs": 20},
    "release": {"mechanism": "gaussian", "sigma": 0.02},
    "defense": {"name": "none"},
    "training": {"batch_size": 32, "augment": {"flip": False, "shift": 0}},
    "attacks": {"membership_candidates": 320},
}


@dataclass(frozen=True)
class Case:
    """Candidates, and what everybody was told of them.

    Attributes:
        view: Ours; its shadow models are there already.
        member: bool ``(n,)``, for the scorer alone.
        phi: float64 ``(n,)``, the target's log-odds of the true class, the image asked as it is.
        shadows: float64 ``(S, n)``, the shadow models'.
        inside: bool ``(S, n)``, whether each was trained on each candidate.
        labels: int64 ``(n,)``, of two classes.
    """

    view: MembershipView
    member: Array
    phi: Array
    shadows: Array
    inside: Array
    labels: Array

    @property
    def data(self) -> str:
        """Digest of everything the attackers were told."""
        return digest([self.phi, self.shadows, self.inside, self.labels])

    def predictions(self, log_odds: Array) -> Array:
        """Probabilities ``(n, 2)`` of the two classes from log-odds of the true one."""
        true = 1 / (1 + np.exp(-log_odds))
        columns = np.stack([1 - true, true], axis=1)
        return np.where(self.labels[:, None] == 1, columns, columns[:, ::-1])


def _case(view: MembershipView, member: Array, shadows: int, part: str) -> Case:
    n = len(view.images)
    made = shadow_models(view, shadows)
    return Case(
        view=view,
        member=member,
        phi=ask_target(view)[part][0, :n, 0].astype(np.float64),
        shadows=np.stack([one.said[part][0, :n, 0] for one in made]).astype(np.float64),
        inside=np.stack([one.inside[:n] for one in made]),
        labels=view.labels[:, 0],
    )


@functools.cache
def trained_case() -> Case:
    """A run of our own, trained until it overfits, and its shadow models; trained once a process."""
    config = parse_config(CONFIG)
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    mechanism = build_mechanism(config, len(prepared.data.splits.train))
    candidates = choose_candidates(config, prepared)
    with TemporaryDirectory() as folder:
        trained = Trainer(
            config,
            prepared.data,
            mechanism,
            RunFolder(Path(folder)),
            device=CPU,
            keep=prepared.data.splits.train[:1],
        ).run()
        view = membership_view(config, prepared, trained, candidates, device=CPU, workshop=Workshop())
        return _case(view, candidates.member, SHADOWS, PART)


@dataclass
class _Drawn:
    """Stands for networks that say what was drawn for them."""

    labels: Array
    tables: list[Array]
    trained: list[int] = field(default_factory=list)

    def says(self, number: int) -> Mapping[str, Model]:
        def model(images: Array, query: int) -> tuple[Array, ...]:
            odds = self.tables[number]
            return (np.where(self.labels[:, None] == 1, [0.0, 1.0], [1.0, 0.0]) * odds[:, None],)

        return {PART: model}

    def train(self, rows: Array, seed: int) -> Mapping[str, Model]:
        self.trained.append(len(self.trained) + 1)
        return self.says(self.trained[-1])


def drawn_case(candidates: int, shadows: int) -> Case:
    """Log-odds that are higher by half a standard deviation where a record was trained on."""
    rng = np.random.default_rng(0)
    images = np.zeros((candidates, 3, 1, 1), dtype=np.uint8)
    labels = rng.integers(0, 2, (candidates, 1))
    member = rng.permutation(candidates) < candidates // 2
    hardness = rng.normal(size=candidates)

    def table(inside: Array) -> Array:
        return (2 * hardness + 0.5 * inside + rng.normal(size=candidates)).astype(np.float32)

    drawn = _Drawn(labels[:, 0], [table(member)])
    view = MembershipView(
        images=images,
        labels=labels,
        groups=np.arange(candidates),
        population=Population(images[:0], labels[:0]),
        target=drawn.says(0),
        train=drawn.train,
        records=candidates // 2,
        seed=0,
    )
    for number in range(shadows):
        drawn.tables.append(table(np.isin(np.arange(candidates), training_rows(view, number))))
    assert len(QUERIES) >= 1
    return _case(view, member, shadows, PART)


Scorer = Callable[[Case], Array]
"""From a case to scores ``(n,)``; larger says "member"."""
