"""Our DP-SGD step against Opacus' own minimal loop on the same edge, exits and records: a ratio in one run.

The minimal loop is Opacus as its tutorials show it: `GradSampleModule`, `DPOptimizer`, one loss, one
backward, one step, noise from torch's generator. Ours adds augmentation, the checks of the release mechanism,
keyed draws, and the checks that nobody else moved a weight or drew a number.
`python benchmarks/dp_sgd_loop.py [BACKBONE]...`.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from dp_sgd import made_up
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch.nn import functional

from privhier.config import RunConfig, parse_config
from privhier.defenses.base import build_defense
from privhier.models.inputs import normalize
from privhier.training.batches import TrainingData
from privhier.training.draws import EdgeDraws
from privhier.training.prepare import build_mechanism
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trained import build_model

BATCH, ROUNDS, SIZE, THREADS, LIMIT = 32, 9, 64, 2, 1.05
CUTS = {"small_cnn": "stage2", "resnet18": "layer1", "mobilenet_v3_small": "stage2"}
CPU = torch.device("cpu")


def config_for(backbone: str) -> RunConfig:
    return parse_config(
        {
            "name": "bench",
            "dataset": {"name": "synthetic", "image_size": SIZE, "task": ["smiling"], "sensitive": ["male"]},
            "model": {
                "backbone": backbone,
                "cut": CUTS[backbone],
                "bottleneck": {"kind": "dimension", "size": 8},
            },
            "schedule": {"pretrain_epochs": 1, "cloud_epochs": 1},
            "release": {"mechanism": "gaussian", "sigma": 1.0},
            "defense": {"name": "none"},
            "edge": {"dp_sgd": {"noise_multiplier": 1.0, "mode": "hooks"}, "warmup_epochs": 0},
            "training": {"batch_size": BATCH},
        }
    )


def minimal(edge, data: TrainingData, sigma: float):
    """A step of Opacus' own loop."""
    module = GradSampleModule(edge, loss_reduction="sum")
    plain = torch.optim.AdamW(edge.parameters(), lr=1e-3)
    optimizer = DPOptimizer(plain, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=BATCH)

    def step(records: np.ndarray) -> None:
        images = normalize(torch.from_numpy(data.images[records]))
        optimizer.zero_grad()
        z = module(images)
        z = z * (1 / z.flatten(1).norm(dim=1).clamp_min(1))[:, None]
        z = z + sigma * torch.randn_like(z)
        loss = functional.cross_entropy(edge.task_logits(z)[0], data.task[records][:, 0], reduction="sum")
        secret = data.sensitive[records][:, 0]
        loss = loss + functional.cross_entropy(edge.adversary_logits(z.detach())[0], secret, reduction="sum")
        loss.backward()
        optimizer.step()

    return step


def measure(backbone: str, data: TrainingData) -> None:
    config = config_for(backbone)
    edge, _ = build_model(config, data)
    mechanism = build_mechanism(config, len(data.splits.train))
    defense = build_defense(config.defense)
    trainer = PrivateEdgeTrainer(
        config, edge.train(), defense, mechanism, n_train=len(data.splits.train), device=CPU
    )
    draws = EdgeDraws(config)
    theirs = minimal(build_model(config, data)[0].train(), data, mechanism.sigma)

    def ours(number: int, records: np.ndarray) -> None:
        noise = draws.noise("pretrain", 0, number, records)
        moved = draws.augmentation("pretrain", 0, number, records)
        trainer.step(data, records, noise, augmentation=moved)

    ratios: dict[str, list[float]] = {"wall": [], "processor": []}
    for number in range(ROUNDS + 2):
        records = data.splits.train[:BATCH]
        clocks = [(time.perf_counter(), time.process_time())]
        ours(number, records)
        clocks.append((time.perf_counter(), time.process_time()))
        theirs(records)
        clocks.append((time.perf_counter(), time.process_time()))
        if number > 1:  # the first rounds warm up, and check the gradients once
            for found, started, middle, ended in zip(ratios.values(), *clocks, strict=True):
                found.append((middle - started) / (ended - middle))
    print(f"{backbone} cut {CUTS[backbone]}, {ROUNDS} pairs of steps of {BATCH}:")
    for name, found in ratios.items():
        spread = f"median {statistics.median(found):.3f}, min {min(found):.3f}, max {max(found):.3f}"
        print(f"  ours / Opacus' loop, {name} time: {spread}", flush=True)


def main() -> None:
    torch.set_num_threads(THREADS)
    data = made_up(SIZE)
    print(f"a DP-SGD step at {SIZE}x{SIZE} by hooks; wanted: at most {LIMIT:.2f}")
    for backbone in sys.argv[1:] or CUTS:
        measure(backbone, data)


if __name__ == "__main__":
    main()
