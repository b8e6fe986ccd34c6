"""What each registered defense costs: its step of training over that of ``none``, in one run.

    python benchmarks/defenses.py [DEFENSE ...]

Both step on the same batches of the same network, in turns, so that what else the machine does falls on both;
a ratio is of two neighbors, and the median of them is told. Extra steps of adversaries and what a defense
reads after a step are in it; what it does once (before training, and closed forms at its end) is told apart,
in seconds. A defense that is made for letters or maps is held against ``none`` on these.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import RunConfig, parse_config
from privhier.datasets.load import load_dataset
from privhier.defenses.base import Defense, build_defense, defenses
from privhier.privacy.noise import RecordNoise
from privhier.seeding import isolated_rng
from privhier.training.batches import TrainingData
from privhier.training.draws import EdgeDraws
from privhier.training.edge import EdgeTrainer
from privhier.training.finish import begin_defense, finish_defense
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import build_model

PAIRS, BATCH = 25, 128
DEVICE = torch.device("cpu")
OPTIONS: dict[str, dict[str, object]] = {}
"""Options of a defense; who is not named takes its defaults."""
NOISE = {"mechanism": "gaussian", "clip": 1.0, "sigma": 0.1}
KINDS = {
    "values": ({"kind": "dimension", "size": 16}, NOISE),
    "map": ({"kind": "channels", "size": 8}, NOISE),
    "letters": ({"kind": "letters", "size": 4, "letters": 16, "fit": "learned"}, {"mechanism": "none"}),
}
"""Bottleneck and release, by what a defense asks for."""


@dataclass
class Side:
    """One defense's training, and how its next step is taken."""

    trainer: EdgeTrainer
    step: Callable[[], None]
    begin: float
    """Seconds before the first step."""


def kind_of(defense: type[Defense]) -> str:
    """What it is measured on: a map or letters where it asks for them, else values of a vector."""
    return next((kind for kind in ("map", "letters") if kind in defense.needs), "values")


def config_of(name: str, kind: str) -> RunConfig:
    """A small network on drawn faces of 48 pixels under this defense, with a release of this kind."""
    bottleneck, release = KINDS[kind]
    return parse_config(
        {
            "name": "benchmark",
            "dataset": {
                "name": "synthetic",
                "image_size": 48,
                "task": ["smiling"],
                "sensitive": ["male"],
                "options": {"images": 3000, "identities": 1000},
            },
            "model": {"backbone": "small_cnn", "cut": "stage2", "bottleneck": bottleneck},
            "schedule": {"pretrain_epochs": 2, "cloud_epochs": 1},
            "release": release,
            "defense": {"name": name, "options": OPTIONS.get(name, {})},
            "edge": {"warmup_epochs": 0},
            "training": {"batch_size": BATCH},
            "runtime": {"device": "cpu"},
        }
    )


def side_of(config: RunConfig, data: TrainingData) -> Side:
    """Everything built as a run builds it, and one batch after the other stepped on."""
    edge, _ = build_model(config, data)
    with isolated_rng(config.seed, "init", "defense"):
        defense = build_defense(config.defense)
    mechanism = build_mechanism(config, len(data.splits.train))
    trainer = EdgeTrainer(config, edge, defense, mechanism, total_steps=10_000, device=DEVICE)
    started = time.perf_counter()
    begin_defense(config, data, edge, defense, device=DEVICE)
    begun = time.perf_counter() - started
    edge.train()
    numbers = iter(range(10_000))

    def step() -> None:
        number = next(numbers)
        first = number * BATCH % (len(data.splits.train) - BATCH)
        records = data.splits.train[first : first + BATCH]
        noise = RecordNoise(0, "benchmark", number, records=records)
        moved = RecordNoise(0, "benchmark", "moved", number, records=records)
        trainer.step(data, records, noise, augmentation=moved)

    return Side(trainer, step, begun)


def seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(name: str, kind: str, data: TrainingData) -> tuple[list[float], float, float, float]:
    """Ratios of neighboring steps; the median step of ``none`` in ms; seconds of ``begin`` and ``finish``."""
    config = config_of(name, kind)
    bare, own = side_of(config_of("none", kind), data), side_of(config, data)
    ratios, base = [], []
    for number in range(PAIRS + 3):
        pair = (bare.step, own.step) if number % 2 == 0 else (own.step, bare.step)
        first, second = seconds(pair[0]), seconds(pair[1])
        none, other = (first, second) if number % 2 == 0 else (second, first)
        if number >= 3:  # the first ones warm up
            ratios.append(other / none)
            base.append(none)
    started = time.perf_counter()
    trainer = own.trainer
    finish_defense(
        config, data, trainer.edge, trainer.defense, trainer.mechanism, EdgeDraws(config), device=DEVICE
    )
    ended = time.perf_counter() - started if trainer.defense.finishes else 0.0
    return ratios, 1000 * statistics.median(base), own.begin, ended


def main() -> None:
    names = list(dict.fromkeys(sys.argv[1:] or defenses.names()))
    config = config_of("none", "values")
    torch.set_num_threads(int(config.runtime.threads))
    data = prepare(config, load_dataset(config.dataset, seed=0)).data
    print(f"a step of {BATCH} records, {PAIRS} pairs each; over none: median (quartiles)")
    print(f"{'defense':<22}{'release':<9}{'none, ms':>9}  {'over none':<22}{'begin, s':>9}{'finish, s':>10}")
    for name in names:
        kind = kind_of(defenses.get(name))
        ratios, base, begun, ended = measure(name, kind, data)
        low, middle, high = statistics.quantiles(ratios, n=4)
        over = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        print(f"{name:<22}{kind:<9}{base:>9.1f}  {over:<22}{begun:>9.2f}{ended:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
