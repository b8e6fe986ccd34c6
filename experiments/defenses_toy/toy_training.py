"""Edges of one layer for the toy worlds, trained by the loop that every run is trained by."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from torch import Tensor, nn
from toy_worlds import CELL, COORDINATES, SIDE, Discrete, Drawn, LinearGaussian

from privhier.config import Choice, RunConfig, parse_config
from privhier.datasets.base import Splits
from privhier.defenses.base import Defense, build_defense
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.features import edge_features
from privhier.models.letter_code import LetterCode
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import Release, ReleaseMechanism
from privhier.seeding import isolated_rng, numpy_stream
from privhier.training.batches import TrainingData
from privhier.training.edge import sanitized
from privhier.training.edge_side import EdgeSide
from privhier.training.folder import RunFolder

Kind = Literal["vector", "map", "letters"]
SHAPES: dict[Kind, tuple[int, ...]] = {"vector": (8,), "map": (8, 2, 2), "letters": (2,)}
SIGMA, CLIP, LETTERS = 0.2, 1.0, 16
EPOCHS, TRAIN, VAL = 12, 4096, 128
DEVICE = torch.device("cpu")


@dataclass(frozen=True)
class Toy:
    """A trained edge and what it releases through."""

    edge: EdgeSegment
    mechanism: ReleaseMechanism
    seed: int

    def release(self, drawn: Drawn, name: str) -> Release:
        """Fresh releases of these records; ``name`` sets their noise apart."""
        z = edge_features(self.edge, drawn.images, np.arange(len(drawn.images)), device=DEVICE)
        with torch.no_grad():
            return sanitized(self.edge, self.mechanism, z, SeededNoise(self.seed, "toy", name))

    def task_scores(self, release: Release) -> Tensor:
        """What the task exit says of class 1, ``(n,)``."""
        with torch.no_grad():
            return torch.softmax(self.edge.task_logits(release.values)[0], 1)[:, 1]


def kinds(defense: type[Defense]) -> tuple[Kind, ...]:
    """The releases that a defense is made for: values before letters, a map where it asks for one."""
    needs = defense.needs & {"letters", "values", "map"}
    found: list[Kind] = []
    if "letters" not in needs:
        found.append("map" if "map" in needs else "vector")
    if not needs & {"values", "map"} and not defense().needs_noise:  # letters have no Gaussian noise
        found.append("letters")
    return tuple(found)


def train(
    world: LinearGaussian | Discrete, kind: Kind, name: str, options: dict[str, Any], *, seed: int = 0
) -> Toy:
    """An edge that learned the world's task under a defense, finished and with its letters found."""
    config = _config(kind, Choice(name=name, options=options), seed)
    data = _data(world, seed)
    mechanism = (
        ReleaseMechanism("none", letters=LETTERS)
        if kind == "letters"
        else ReleaseMechanism("gaussian", clip=CLIP, sigma=SIGMA)
    )
    edge = _edge(config, kind)
    with tempfile.TemporaryDirectory() as scratch:
        side = EdgeSide(config, data, mechanism, RunFolder(Path(scratch)), edge, device=DEVICE)
        for epoch in range(EPOCHS):
            side.pretrain(epoch)
    return Toy(edge.eval(), mechanism, seed)


def _edge(config: RunConfig, kind: Kind) -> EdgeSegment:
    """Blocks of pixels to coordinates, one linear layer, what the defense adds, one exit each."""
    shape = SHAPES[kind]
    with isolated_rng(config.seed, "model", "toy", kind):
        linear = nn.Linear(COORDINATES, int(np.prod(shape)))
        if kind == "letters":  # among the codes, which are drawn from N(0, 1): or all values get one letter
            nn.init.normal_(linear.weight)
        task, secret = Exit(shape, 2, 16), Exit(shape, 2, 16)
        code = LetterCode(groups=1, letters=LETTERS, size=2, learned=True) if kind == "letters" else None
    edge = EdgeSegment(
        nn.AvgPool2d(CELL),
        nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, shape)),
        task_exits={"y": task},
        adversarial_exits={"s": secret},
        feature_shape=shape,
        description={"image_size": SIDE},
        code=code,
    )
    with isolated_rng(config.seed, "model", "outlet"):
        outlet = build_defense(config.defense).outlet(edge.feature_shape)
    if outlet is not None:
        edge.outlet = outlet
    return edge


def _data(world: LinearGaussian | Discrete, seed: int) -> TrainingData:
    drawn = world.draw(TRAIN + VAL, numpy_stream(seed, "toy", "training"))
    rows = np.arange(TRAIN + VAL)
    return TrainingData(
        images=drawn.images,
        task=torch.from_numpy(drawn.task)[:, None],
        sensitive=torch.from_numpy(drawn.secret)[:, None],
        task_classes={"y": 2},
        sensitive_classes={"s": 2},
        splits=Splits(train=rows[:TRAIN], val=rows[TRAIN:], aux=rows[:0], test=rows[:0]),
        persons=torch.from_numpy(rows),
    )


def _config(kind: Kind, defense: Choice, seed: int) -> RunConfig:
    """What the loop reads of a run; the data set and the network named here are not used."""
    letters = {"kind": "letters", "size": 2, "letters": LETTERS, "fit": "learned"}
    noise = {"mechanism": "gaussian", "clip": CLIP, "sigma": SIGMA}
    return parse_config(
        {
            "name": "toy",
            "seed": seed,
            "dataset": {"name": "synthetic", "image_size": 32, "task": ["y"], "sensitive": ["s"]},
            "model": {"bottleneck": letters if kind == "letters" else {"kind": "dimension", "size": 8}},
            "schedule": {"pretrain_epochs": EPOCHS, "cloud_epochs": 1},
            "release": {"mechanism": "none"} if kind == "letters" else noise,
            "defense": defense.model_dump(),
            "training": {
                "batch_size": 128,
                "edge": {"lr": 0.01},
                "augment": {"flip": False, "shift": 0},
            },
            "runtime": {"device": "cpu", "threads": 1},
        }
    )
