"""Attribute scores on the same releases: our bench against ART's attribute inference.

A run of our own on drawn faces, task "smiling", secret "male"; 64 noised values a release. Everybody owns
the same auxiliary records with the same fresh draws of each, one draw a row, and answers for the same
victims. Ours is one answer: of the bench's attackers the one that did best on its own validation split. ART's
are all shown; it picks none. In the last row both are the one that did best on the victims, as a report shows
leakage. ART's black-box attack also asks the target: here the cloud tail on the release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import Array, Strength, strength
from pages import versions_of
from scene import CPU
from torch import Tensor, nn

from privhier.attacks.curious_cloud import AuxiliarySource, curious_cloud_view
from privhier.attacks.gradient_boosting import GradientBoostingAttack
from privhier.attacks.logistic_regression import LogisticRegressionAttack
from privhier.attacks.mlp import MlpAttack
from privhier.attacks.rbf_kernel import RbfKernelAttack
from privhier.attacks.view import View
from privhier.config import parse_config
from privhier.datasets.load import load_dataset
from privhier.metrics.classification import balanced_accuracy
from privhier.models.tail import CloudTail
from privhier.training.folder import RunFolder
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trainer import Trainer

SECRET, DRAWS = "male", 2
KINDS = ("nn", "rf", "gb", "lr", "svm", "knn")
CONFIG: dict[str, Any] = {
    "name": "peers",
    "dataset": {
        "name": "synthetic",
        "image_size": 32,
        "task": ["smiling"],
        "sensitive": [SECRET],
        "options": {"images": 2000, "identities": 1000},
        "splits": {"train": 0.3, "val": 0.1, "aux": 0.3, "test": 0.3},
    },
    "model": {"backbone": "small_cnn", "cut": "stage2", "bottleneck": {"kind": "dimension", "size": 64}},
    "schedule": {"joint_epochs": 6},
    "release": {"mechanism": "gaussian", "sigma": 0.02},
    "defense": {"name": "none"},
    "training": {"batch_size": 64},
}


@dataclass(frozen=True)
class Case:
    """What attackers are given, and the victims' truth for the scorer."""

    view: View
    tail: CloudTail
    truth: Array


def trained_case() -> Case:
    """Train the run; one release of each victim by the final edge, fresh draws of the auxiliary set."""
    config = parse_config(CONFIG)
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    data, labels = prepared.data, prepared.labels[SECRET]
    mechanism = build_mechanism(config, len(data.splits.train))
    with TemporaryDirectory() as folder:
        trained = Trainer(
            config, data, mechanism, RunFolder(Path(folder)), device=CPU, keep=data.splits.train[:1]
        ).run()
        victims = np.array(trained.test_releases[:, -1:])
    source = AuxiliarySource(
        np.asarray(data.images),
        data.splits.aux,
        {SECRET: labels.values},
        {SECRET: len(labels.classes)},
        prepared.dataset.group,
    )
    view = curious_cloud_view(
        edges=[trained.edge],
        mechanism=trained.mechanism,
        victims=victims,
        source=source,
        draws=DRAWS,
        seed=0,
        device=CPU,
        tail=trained.tail,
    )
    return Case(view, trained.tail, labels.values[data.splits.test])


def ours(case: Case) -> tuple[str, dict[str, Array]]:
    """Which of the bench's attackers did best on its own validation split, and everybody's predictions."""
    results = {
        kind.__name__: kind(target=SECRET).run(case.view)
        for kind in (LogisticRegressionAttack, GradientBoostingAttack, MlpAttack, RbfKernelAttack)
    }
    name = max(results, key=lambda one: results[one].validation)
    return name, {one: np.asarray(result.predictions) for one, result in results.items()}


def columns(case: Case) -> tuple[Array, Array, Array]:
    """Auxiliary rows ``(m * K, d)`` of all draws, their secrets, and the victims' rows ``(n, d)``."""
    aux, count = case.view.aux, case.view.aux.draws
    drawn = np.concatenate([aux.releases(k).reshape(len(aux.images), -1) for k in range(count)])
    return drawn, np.tile(aux.labels[SECRET], count), case.view.releases.reshape(len(case.truth), -1)


class WithoutFirst(nn.Module):
    """The tail as a classifier of rows whose first column is the secret, which it does not look at."""

    def __init__(self, tail: CloudTail) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, rows: Tensor) -> Tensor:
        """Task logits ``(b, 2)``."""
        return self.tail(rows[:, 1:])[0]  # type: ignore[no-any-return]


def baseline(case: Case, kind: str) -> Array:
    """``AttributeInferenceBaseline``: learns the secret from the other columns."""
    from art.attacks.inference.attribute_inference import AttributeInferenceBaseline

    drawn, secrets, victims = columns(case)
    torch.manual_seed(0)
    attack = AttributeInferenceBaseline(attack_model_type=kind, attack_feature=0)
    attack.fit(np.column_stack([secrets, drawn]).astype(np.float32))
    return np.asarray(attack.infer(victims, values=[0, 1])).reshape(-1)


def black_box(case: Case, kind: str) -> Array:
    """``AttributeInferenceBlackBox``: from the other columns and the target's prediction."""
    from art.attacks.inference.attribute_inference import AttributeInferenceBlackBox
    from art.estimators.classification import PyTorchClassifier

    drawn, secrets, victims = columns(case)
    rows = np.column_stack([secrets, drawn]).astype(np.float32)
    target = PyTorchClassifier(
        WithoutFirst(case.tail), loss=nn.CrossEntropyLoss(), input_shape=(rows.shape[1],), nb_classes=2
    )
    torch.manual_seed(0)
    attack = AttributeInferenceBlackBox(target, attack_model_type=kind, attack_feature=0)
    attack.fit(rows)
    asked = np.column_stack([np.zeros(len(victims)), victims]).astype(np.float32)
    said = target.predict(asked).argmax(axis=1).reshape(-1, 1)
    return np.asarray(attack.infer(victims, pred=said, values=[0, 1])).reshape(-1)


def accuracy(said: Array, truth: Array) -> float:
    """Balanced, of two classes."""
    return balanced_accuracy(said.astype(np.int64), truth, 2)


def rows(pairs: int, skip: Callable[[str], None]) -> Iterator[Strength]:
    """Ours against every model that ART offers."""
    import art  # noqa: F401  -- not installed: nothing below is worth training for

    case = trained_case()
    began = time.perf_counter()
    name, mine = ours(case)
    took = time.perf_counter() - began
    attacks: tuple[tuple[str, Callable[[Case, str], Array]], ...] = (
        ("AttributeInferenceBaseline", baseline),
        ("AttributeInferenceBlackBox", black_box),
    )
    theirs: dict[str, tuple[Array, float]] = {}
    for peer, attack in attacks:
        for kind in KINDS:
            began = time.perf_counter()
            theirs[f"{peer}, {kind}"] = attack(case, kind), time.perf_counter() - began

    def row(our_name: str, peer: str) -> Strength:
        return strength(
            f"attribute, our bench ({our_name})",
            f"ART {peer}",
            versions=versions_of("adversarial-robustness-toolbox"),
            score="balanced accuracy",
            of=accuracy,
            ours=mine[our_name],
            theirs=theirs[peer][0],
            truth=case.truth,
            seconds=(took, theirs[peer][1]),
        )

    for peer in theirs:
        yield row(name, peer)
    # What a report shows: the worst, whoever it is.
    worst = max(mine, key=lambda one: accuracy(mine[one], case.truth))
    strongest = max(theirs, key=lambda one: accuracy(theirs[one][0], case.truth))
    yield replace(row(worst, strongest), what=f"attribute, the worst of our bench ({worst}) and of ART")
