"""Images a second of the edge's training on one device, each option by itself: a table with the card's name.

`python benchmarks/gpu.py` measures the CUDA device at hand and writes `benchmarks/results/gpu.md`; without
one it says so and exits with 2. `--check` only looks. `--cpu --out FILE` runs the same code, tiny, on a CPU:
it tries the code and measures nothing. Pictures are random: speed does not depend on what they show.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import RunConfig, parse_config
from privhier.datasets.base import Splits
from privhier.defenses.base import build_defense
from privhier.errors import ConfigError
from privhier.seeding import numpy_stream
from privhier.training import compiled
from privhier.training.batches import TrainingData
from privhier.training.draws import EdgeDraws
from privhier.training.edge import EdgeTrainer
from privhier.training.prepare import build_mechanism
from privhier.training.private_edge import PrivateEdgeTrainer
from privhier.training.resident import Pixels
from privhier.training.trained import build_model

RESULT = Path(__file__).parent / "results" / "gpu.md"
CUTS = {"small_cnn": "stage2", "resnet18": "layer1", "mobilenet_v3_small": "stage2"}
PRIVATE = {"dp_sgd": {"noise_multiplier": 1.0, "mode": "hooks"}, "warmup_epochs": 0}
ROWS: dict[str, dict] = {
    "read ahead": {},
    "resident": {"resident": True},
    "resident, channels last": {"resident": True, "channels_last": True},
    "resident, bfloat16": {"resident": True, "precision": "bfloat16"},
    "resident, compiled": {"resident": True, "compile": True},
    "resident, compiled, bfloat16": {"resident": True, "compile": True, "precision": "bfloat16"},
    "resident, DP-SGD": {"resident": True, "private": True},
    "resident, DP-SGD, bfloat16": {"resident": True, "private": True, "precision": "bfloat16"},
}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    images: int = 16384
    pixels: int = 64
    batch: int = 512
    rounds: int = 5


TINY = Size(images=33, pixels=32, batch=16, rounds=1)


def config_for(backbone: str, size: Size, options: dict) -> RunConfig:
    runtime = {key: value for key, value in options.items() if key != "private"}
    return parse_config(
        {
            "name": "gpu",
            "dataset": {
                "name": "synthetic",
                "image_size": size.pixels,
                "task": ["smiling"],
                "sensitive": ["male"],
            },
            "model": {
                "backbone": backbone,
                "cut": CUTS[backbone],
                "bottleneck": {"kind": "dimension", "size": 8},
            },
            "schedule": {"pretrain_epochs": 99, "cloud_epochs": 1},
            "release": {"mechanism": "gaussian", "sigma": 0.3},
            "defense": {"name": "gradient_reversal"},
            "edge": PRIVATE if options.get("private") else {"warmup_epochs": 0},
            "training": {"batch_size": size.batch},
            "runtime": runtime,
        }
    )


def made_up(size: Size) -> TrainingData:
    everyone = np.arange(size.images)
    shape = (size.images, 3, size.pixels, size.pixels)
    half = torch.from_numpy(everyone % 2)[:, None]
    return TrainingData(
        images=numpy_stream(0, "gpu").integers(0, 256, shape, dtype=np.uint8),
        task=half,
        sensitive=half.clone(),
        task_classes={"smiling": 2},
        sensitive_classes={"male": 2},
        splits=Splits(everyone, everyone[:0], everyone[:0], everyone[:0]),
    )


def images_a_second(config: RunConfig, data: TrainingData, device: torch.device, rounds: int) -> float:
    """Median over epochs; the first warms up, compiles and checks."""
    torch.manual_seed(0)
    edge = build_model(config, data)[0].to(device).train()
    parts = (config, edge, build_defense(config.defense), build_mechanism(config, len(data.splits.train)))
    if config.edge.dp_sgd is None:
        trainer = EdgeTrainer(*parts, total_steps=1000, device=device)
    else:
        trainer = PrivateEdgeTrainer(*parts, n_train=len(data.splits.train), device=device)
    trainer._pixels = Pixels(data, device, config.runtime.resident)
    if device.type == "cpu":  # the same code as on a card
        trainer._pixels.ahead = True
        if config.runtime.resident is True:
            trainer._pixels.hold()
    draws, speeds = EdgeDraws(config), []
    for epoch in range(rounds + 1):
        started, seen = time.perf_counter(), 0
        for records in trainer.loaded(data, data.splits.train, "pretrain", epoch):
            turn = trainer.turn("pretrain")
            noise = draws.noise("pretrain", epoch, turn, records)
            moved = draws.augmentation("pretrain", epoch, turn, records)
            trainer.step(data, records, noise, augmentation=moved)
            seen += len(records)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if epoch:
            speeds.append(seen / (time.perf_counter() - started))
    return statistics.median(speeds)


def table(device: torch.device, size: Size) -> str:
    """Every backbone and option, as Markdown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU (a trial: no measurement)"
    lines = [f"# Images a second: {name}", ""]
    lines += [
        f"Training of the edge up to its cut on {size.images} pictures of {size.pixels}x{size.pixels}, in "
        f"batches of {size.batch}, torch {torch.__version__}; median of {size.rounds} epochs, ratio to the "
        "first row.",
        "",
        "| backbone, cut | how | images/s | ratio |",
        "|---|---|---|---|",
    ]
    data = made_up(size)
    for backbone, cut in CUTS.items():
        first = None
        for row, options in ROWS.items():
            try:
                found = images_a_second(config_for(backbone, size, options), data, device, size.rounds)
            except torch.OutOfMemoryError:
                lines.append(f"| {backbone}, {cut} | {row} | out of memory | |")
                continue
            first = first or found
            lines.append(f"| {backbone}, {cut} | {row} | {found:.0f} | {found / first:.2f} |")
            print(lines[-1], flush=True)
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second on the CUDA device at hand")
    parser.add_argument("--check", action="store_true", help="only look for a CUDA device")
    parser.add_argument("--cpu", action="store_true", help="try the code, tiny, on a CPU")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if not given.cpu and not torch.cuda.is_available():
        print("gpu: no CUDA device is at hand; nothing was tested or measured")
        raise SystemExit(2)
    if given.cpu and given.out == RESULT:
        raise ConfigError(
            key="--out", value=str(RESULT), rule="is for measurements on a card", remedy="Give another --out"
        )
    device = torch.device("cpu" if given.cpu else "cuda")
    if given.check:
        print(f"gpu: {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'a CPU'}")
        return
    if given.cpu:
        compiled.BACKEND = "eager"  # trying the code needs no C++ compiler
    text = table(device, TINY if given.cpu else Size())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text)
    print(f"gpu: {given.out.name} written")


if __name__ == "__main__":
    main()
