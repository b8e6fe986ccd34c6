"""DP-SGD steps of the edge by hooks and by ghost clipping against plain steps, backbone by backbone.

Whichever mode is faster here is what ``edge.dp_sgd.mode: auto`` should choose
(``privhier.privacy.dpsgd.FASTEST``); ratios measured in one run.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import RunConfig, parse_config
from privhier.datasets.base import Splits
from privhier.defenses.base import build_defense
from privhier.privacy.dpsgd import FASTEST
from privhier.privacy.noise import SeededNoise
from privhier.seeding import numpy_stream, torch_stream
from privhier.training.batches import TrainingData
from privhier.training.edge import EdgeTrainer
from privhier.training.prepare import build_mechanism
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.trained import build_model

BATCH, ROUNDS, SIZE = 32, 3, 64
CUTS = {
    "small_cnn": "stage2",
    "vgg11": "block2",
    "vgg16": "block2",
    "resnet18": "layer1",
    "resnet50": "layer1",
    "mobilenet_v3_small": "stage2",
    "efficientnet_b0": "stage2",
}


def config_for(backbone: str, cut: str, mode: str) -> RunConfig:
    return parse_config(
        {
            "name": "bench",
            "dataset": {"name": "synthetic", "image_size": SIZE, "task": ["smiling"], "sensitive": ["male"]},
            "model": {"backbone": backbone, "cut": cut, "bottleneck": {"kind": "dimension", "size": 8}},
            "schedule": {"pretrain_epochs": 1, "cloud_epochs": 1},
            "release": {"mechanism": "gaussian", "sigma": 1.0},
            "defense": {"name": "gradient_reversal"},
            "edge": {"dp_sgd": {"noise_multiplier": 1.0, "mode": mode}},
            "training": {"batch_size": BATCH},
        }
    )


def seconds(trainer: EdgeTrainer, data: TrainingData) -> float:
    records, augmentation = data.splits.train[:BATCH], torch_stream(0, "augment")
    started = time.perf_counter()
    trainer.step(data, records, SeededNoise(0, "bench"), augmentation=augmentation)
    return time.perf_counter() - started


def made_up(size: int) -> TrainingData:
    """Two hundred training records of noise, two classes each."""
    everyone = np.arange(200)
    pixels = numpy_stream(0, "bench").integers(0, 256, (200, 3, size, size), dtype=np.uint8)
    half = torch.from_numpy(everyone % 2)[:, None]
    return TrainingData(
        images=pixels,
        task=half,
        sensitive=half.clone(),
        task_classes={"smiling": 2},
        sensitive_classes={"male": 2},
        splits=Splits(everyone, everyone[:0], everyone[:0], everyone[:0]),
    )


def main() -> None:
    torch.set_num_threads(2)
    data = made_up(SIZE)
    print(f"one step of {BATCH} images of {SIZE}x{SIZE}, time against a plain step, median of {ROUNDS}:")
    for backbone, cut in CUTS.items():
        trainers: dict[str, EdgeTrainer] = {}
        for mode in ("plain", "hooks", "ghost"):
            config = config_for(backbone, cut, "hooks" if mode == "plain" else mode)
            edge, _ = build_model(config, data)
            edge.train()
            parts = (
                config,
                edge,
                build_defense(config.defense),
                build_mechanism(config, len(data.splits.train)),
            )
            if mode == "plain":
                trainers[mode] = EdgeTrainer(*parts, total_steps=100, device=torch.device("cpu"))
            else:
                trainers[mode] = PrivateEdgeTrainer(*parts, n_train=200, device=torch.device("cpu"))
            seconds(trainers[mode], data)  # warms up
        ratios: dict[str, list[float]] = {"hooks": [], "ghost": []}
        for _ in range(ROUNDS):
            plain = seconds(trainers["plain"], data)
            for mode, found in ratios.items():
                found.append(seconds(trainers[mode], data) / plain)
        hooks, ghost = (statistics.median(found) for found in ratios.values())
        faster = "ghost" if ghost < hooks else "hooks"
        chosen = FASTEST.get(backbone, "hooks")
        times = f"hooks {hooks:5.2f}  ghost {ghost:5.2f}"
        print(f"  {backbone:<20} cut {cut:<8} {times}  faster {faster}, auto {chosen}")


if __name__ == "__main__":
    main()
