"""Under ``noise_source: system`` all five kinds of draws take their bits from the operating system."""

from __future__ import annotations

import math
import os
import runpy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.privacy.dpsgd import DpSgd
from privhier.privacy.ledger import Ledger
from privhier.seeding import torch_stream
from privhier.training import clip as clip_room
from privhier.training import labels as labels_room
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import Prepared, build_mechanism, prepare
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.release import Releaser
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
WIDTH = 4
SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
small_config = SMALL["small_config"]


def make_config(source: str = "system") -> RunConfig:
    return small_config(
        images=200,
        size=16,
        batch=24,
        model={"bottleneck": {"size": WIDTH}},
        release={"mechanism": "gaussian", "clip": SMALL["QUANTILE"], "target_epsilon": 8.0},
        edge={"dp_sgd": {"noise_multiplier": 1.5}},
        privacy={"noise_source": source, "label_epsilon": 0.5},
    )


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    config = make_config()
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def make_trainer(prepared: Prepared, folder: Path, source: str = "system") -> Trainer:
    config, run = make_config(source), RunFolder(folder)
    folder.mkdir(exist_ok=True)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    return Trainer(
        config, prepared.data, build_mechanism(config, len(train)), run, device=CPU, keep=train[:5]
    )


def private(trainer: Trainer) -> PrivateEdgeTrainer:
    assert isinstance(trainer.edge, PrivateEdgeTrainer)
    return trainer.edge


class Meter:
    """Bytes taken from the operating system, by what they were taken for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: Counter[str] = Counter()
        self._place, self._patch, self._urandom = "", monkeypatch, os.urandom
        monkeypatch.setattr(os, "urandom", self._count)
        self._wrap(clip_room, "draw_quantile", "clip quantile")
        self._wrap(labels_room, "randomize", "labels")
        self._wrap(DpSgd, "descend", "dp-sgd noise")
        self._wrap_noise()
        self._wrap_batches()

    def _count(self, size: int) -> bytes:
        self.taken[self._place] += size
        return self._urandom(size)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        before, self._place = self._place, place
        try:
            yield
        finally:
            self._place = before

    def _wrap(self, owner: Any, name: str, place: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.at(place):
                return original(*args, **kwargs)

        self._patch.setattr(owner, name, wrapped)

    def _wrap_noise(self) -> None:
        """What ``Releaser.noise`` hands out; the sources of what stays on the edge are not counted here."""
        meter, original = self, Releaser.noise

        class Metered:
            def __init__(self, source: Any, place: str) -> None:
                self._source, self._at, self.kind = source, place, source.kind

            def gaussian(self, shape: tuple[int, ...]) -> torch.Tensor:
                with meter.at(self._at):
                    return self._source.gaussian(shape)

        def noise(self: Releaser, split: str, phase: str, epoch: int, batch: int) -> Any:
            return Metered(original(self, split, phase, epoch, batch), f"release {split} {phase}")

        self._patch.setattr(Releaser, "noise", noise)

    def _wrap_batches(self) -> None:
        original = PrivateEdgeTrainer.batches

        def batches(trainer: PrivateEdgeTrainer, records: Any, phase: str, epoch: int) -> Iterator[Any]:
            inner = original(trainer, records, phase, epoch)
            while True:
                with self.at(f"batches {phase}"):
                    batch = next(inner, None)
                if batch is None:
                    return
                yield batch

        self._patch.setattr(PrivateEdgeTrainer, "batches", batches)


def test_a_run_takes_its_bytes_from_the_operating_system_in_all_five_places(prepared, tmp_path, monkeypatch):
    meter = Meter(monkeypatch)
    trainer = make_trainer(prepared, tmp_path)
    trainer.run()
    splits, taken = prepared.data.splits, meter.taken
    assert taken["clip quantile"] >= 8
    assert taken["labels"] >= 2 * 8 * len(splits.train)  # answer at random, and if so which
    parameters = sum(parameter.numel() for parameter in private(trainer).edge.parameters())
    steps = {event.phase: event.steps for event in private(trainer).executed}
    assert taken["dp-sgd noise"] >= 8 * parameters * sum(steps.values())
    assert taken["batches pretrain"] >= 8 * len(splits.train) * steps["pretrain"]
    for split in ("train", "val", "test"):
        for phase in ("joint", "cloud"):
            assert taken[f"release {split} {phase}"] >= 8 * WIDTH * len(getattr(splits, split)), (
                split,
                phase,
            )


def test_a_reloaded_edge_takes_its_bytes_from_there_whatever_it_was_trained_with(
    prepared, tmp_path, monkeypatch
):
    make_trainer(prepared, tmp_path, "seeded").run()
    images = prepared.data.pixels(prepared.data.splits.test[:6])
    meter = Meter(monkeypatch)
    released = []
    for _ in range(2):
        edge = load_edge(tmp_path).eval()
        with meter.at("deployed"):
            released += [edge(images), edge(images)]
    assert meter.taken["deployed"] >= 4 * 8 * WIDTH * 6
    assert all(not torch.equal(a, b) for n, a in enumerate(released) for b in released[:n])


def test_a_seeded_run_takes_none(prepared, tmp_path, monkeypatch):
    """So the meter above counts draws, and nothing else that asks for bytes."""
    meter = Meter(monkeypatch)
    make_trainer(prepared, tmp_path, "seeded").run()
    assert not any(count for place, count in meter.taken.items() if place)


# Two runs of the same seed, place by place


def test_releases_of_the_same_features_differ(prepared, tmp_path):
    trainers = [make_trainer(prepared, tmp_path / name) for name in "ab"]
    draws = [
        trainer.releaser.noise(split, "joint", 0, 0).gaussian((5, WIDTH))
        for trainer in trainers
        for split in ("train", "train", "val", "test")
    ]
    assert all(not torch.equal(a, b) for n, a in enumerate(draws) for b in draws[:n])


def test_randomized_labels_and_clip_bounds_differ(prepared, tmp_path):
    trainers = [make_trainer(prepared, tmp_path / str(number)) for number in range(5)]
    assert len({trainer.mechanism.clip for trainer in trainers}) > 1
    everyone = range(len(prepared.data.task))
    answers = [trainer.releaser.labels(prepared.data, everyone) for trainer in trainers]
    assert all(not torch.equal(a, b) for n, a in enumerate(answers) for b in answers[:n])


def test_poisson_batches_differ(prepared, tmp_path):
    train = prepared.data.splits.train
    drawn = []
    for name in "ab":
        edge = private(make_trainer(prepared, tmp_path / name))
        drawn.append([batch.tolist() for _, batch in zip(range(2), edge.batches(train, "pretrain", 0))])  # noqa: B905
    assert drawn[0] != drawn[1]
    assert drawn[0][0] != drawn[0][1]


def test_the_noise_on_gradients_differs(prepared, tmp_path):
    moved = []
    for name in "ab":
        edge = private(make_trainer(prepared, tmp_path / name))
        edge.edge.train()
        before = torch.cat([p.detach().reshape(-1) for p in edge.edge.parameters()])
        edge._checked = True
        nobody = prepared.data.splits.train[:0]
        edge.step(
            prepared.data,
            nobody,
            Releaser(make_config(), edge.mechanism, Ledger(None), run_id="t").noise("train", "joint", 0, 0),
            augmentation=torch_stream(0, "augment"),
        )
        moved.append(torch.cat([p.detach().reshape(-1) for p in edge.edge.parameters()]) - before)
    assert math.isfinite(float(moved[0].norm()))
    assert not torch.equal(moved[0], moved[1])
