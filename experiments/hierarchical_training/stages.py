"""What the parts of a network cost by themselves, on one quiet core: time, memory, operations.

    python experiments/hierarchical_training/stages.py experiments/hierarchical_training/resnet18_32.yaml

Every part runs in a process of its own, so that its memory is its own. Pictures are random (for JPEG: the
data set's). Milliseconds are the median over rounds, per image; memory is the peak above the process with its
libraries loaded; operations are torch's count of one training step, per image.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from pictures import DECODERS, ENCODERS, FORMATS, coded_bytes
from regimes import Stages
from shaped_link import single_thread
from torch.utils.flop_counter import FlopCounterMode
from whole_network import Facts, WholeTrainer, halves, load_data, study_config

from privhier.config import RunConfig
from privhier.datasets.base import Splits
from privhier.defenses.base import build_defense
from privhier.models.network import build_network
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import numpy_stream, torch_stream
from privhier.training.batches import TrainingData
from privhier.training.cloud import mean_task_loss
from privhier.training.edge import EdgeTrainer
from privhier.training.optimize import build_optimizer

NETWORKS = ("full", "edge", "cloud", "release", "split_edge", "split_cloud")
"""Parts that compute."""
PARTS = (*NETWORKS, *(f"{way}_{codec}" for codec in FORMATS for way in ("encode", "decode")))
WIRE_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}
CPU = torch.device("cpu")
Step = Callable[[], object]


def build_part(part: str, config: RunConfig) -> Step:
    """One step of a part, on a batch."""
    size, batch = config.dataset.image_size, config.training.batch_size
    facts = Facts(size, dict.fromkeys(config.dataset.task, 2), batch)
    random = numpy_stream(0, "stages")
    pixels = random.integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
    labels = torch.from_numpy(random.integers(0, 2, (batch, len(facts.task_classes))))
    if part == "full":
        trainer = WholeTrainer(config, facts, total_steps=10**6, device=CPU)
        draws = torch_stream(0, "stages")
        return lambda: trainer.step(torch.from_numpy(pixels), labels, draws)
    if part == "edge":
        return _edge_step(config, facts, pixels, labels)
    way, _, codec = part.partition("_")
    if codec in FORMATS:  # noise is hard to compress: real pictures here
        data, _ = load_data(config)
        faces = data.images[data.splits.train[:batch]]
        coded = coded_bytes(faces, codec)
        return (
            (lambda: ENCODERS[codec](faces))
            if way == "encode"
            else (lambda: DECODERS[codec](coded, batch, size))
        )
    front, tail = halves(config, facts)
    images = torch.randn(batch, 3, size, size)
    with torch.no_grad():
        z = front(images)
    if part == "release":
        front.eval()
        return lambda: _forward(front, images)
    net = front if part == "split_edge" else tail
    optimizer = build_optimizer(net.train().parameters(), config.training.cloud)
    z.requires_grad_(part == "split_cloud")
    gradient = torch.ones_like(z)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if net is tail:
            torch.autograd.backward(mean_task_loss(tail(z), labels))
        else:
            front(images).backward(gradient)
        optimizer.step()

    return step


def _edge_step(config: RunConfig, facts: Facts, pixels: Any, labels: torch.Tensor) -> Step:
    """The product's own edge: augmentation, exits, defense, release mechanism, optimizer."""
    hidden = dict.fromkeys(config.dataset.sensitive, 2)
    classes = {"task_classes": facts.task_classes, "sensitive_classes": hidden}
    edge, _ = build_network(config.model, image_size=facts.image_size, seed=0, **classes)
    mechanism = ReleaseMechanism("none", quantize=config.release.quantize)
    defense = build_defense(config.defense)
    trainer = EdgeTrainer(config, edge.train(), defense, mechanism, total_steps=10**6, device=CPU)
    secrets = labels[:, :1].expand(-1, len(hidden))
    rows, draws = np.arange(len(pixels)), torch_stream(0, "stages")
    data = TrainingData(pixels, labels, secrets, splits=Splits(rows, rows, rows, rows), **classes)
    return lambda: trainer.step(data, rows, SeededNoise(0, "stages"), augmentation=draws)


@torch.no_grad()
def _forward(net: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = net(images)
    return result


def measure_part(part: str, config: RunConfig, *, seconds: float) -> dict[str, float]:
    """Milliseconds, peak MiB and operations of one part, per image (memory: in all)."""
    torch.set_num_threads(1)
    before = _memory("VmRSS")
    step, batch = build_part(part, config), config.training.batch_size
    with FlopCounterMode(display=False) as counter:
        step()
    Path("/proc/self/clear_refs").write_text("5")  # peak memory counts from here
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return {
        "ms": statistics.median(times) * 1000 / batch,
        "mib": (_memory("VmHWM") - before) / 1024,
        "mflop": counter.get_total_flops() / batch / 1e6,
    }


def payload_bytes(config: RunConfig, *, sample: int = 256) -> dict[str, float]:
    """Bytes per image before anything is wrapped around them; JPEG as the mean of a sample."""
    data, facts = load_data(config)
    batch, faces = config.training.batch_size, data.images[data.splits.train[:sample]]
    front, _ = halves(config, facts)
    with torch.no_grad():
        values = front.eval()(torch.zeros(1, 3, facts.image_size, facts.image_size)).numel()
    starts = range(0, len(faces), batch)
    return {
        "raw": float(faces[0].size),
        **{
            codec: sum(len(coded_bytes(faces[start : start + batch], codec)) for start in starts) / len(faces)
            for codec in FORMATS
        },
        "jpeg_alone": sum(len(coded_bytes(face[None])) for face in faces) / len(faces),
        "features": 4.0 * values,
        "release": WIRE_BYTES[config.release.quantize] * values,
    }


def _memory(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1])


def measure_all(
    config: str, overrides: list[str], *, wide: bool, core: int = 0, seconds: float = 4.0
) -> dict[str, dict[str, float]]:
    """Every part's figures, each from a fresh process on one core."""
    found = {}
    for part in PARTS:
        pin = ["taskset", "-c", str(core)] if shutil.which("taskset") else []
        command = [*pin, sys.executable, __file__, config, *overrides]
        command += ["--part", part, "--seconds", str(seconds), *(["--wide"] if wide else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=single_thread())
        found[part] = json.loads(done.stdout)
    return found


def stages_of(parts: Mapping[str, Mapping[str, float]]) -> Stages:
    """The model's times from measured parts."""
    ms = {part: measured["ms"] for part, measured in parts.items()}
    coded = {way: {codec: ms[f"{way}_{codec}"] for codec in FORMATS} for way in ("encode", "decode")}
    return Stages(**{part: ms[part] for part in NETWORKS}, **coded)


def main() -> None:
    """Print all parts of one network, or (``--part``) measure one here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--wide", action="store_true", help="without the bottleneck")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, each part")
    options = parser.parse_intermixed_args()
    if options.part:
        config = study_config(options.config, options.overrides, wide=options.wide)
        print(json.dumps(measure_part(options.part, config, seconds=options.seconds)))
        return
    print(f"{'part':12s} {'ms/image':>9s} {'peak MiB':>9s} {'MFLOP/image':>12s}")
    for part, row in measure_all(
        options.config, options.overrides, wide=options.wide, seconds=options.seconds
    ).items():
        print(f"{part:12s} {row['ms']:9.3f} {row['mib']:9.1f} {row['mflop']:12.2f}")
    for name, size in payload_bytes(
        study_config(options.config, options.overrides, wide=options.wide)
    ).items():
        print(f"{name:12s} {size:9.1f} bytes/image")


if __name__ == "__main__":
    main()
