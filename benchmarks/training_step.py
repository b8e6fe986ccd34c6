"""Our training step against a hand-written loop of the same network, backbone by backbone, in one run.

The hand-written loop does the same arithmetic with plain PyTorch: augment, forward through edge and exits,
clip and noise, backward, optimizer; then the tail on the detached features. Ours adds the defense contract,
the ledger, encoding to bytes, the uplink and decoding; it may be faster where it lays maps out otherwise.
Beside other work only processor time is worth anything. `python benchmarks/training_step.py [BACKBONE]...`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from torch.nn import functional

from privhier.config import load_config
from privhier.datasets.load import load_dataset
from privhier.models.inputs import normalize
from privhier.training.batches import shuffled_batches
from privhier.training.folder import RunFolder
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import build_model
from privhier.training.trainer import Trainer
from privhier.uplink.local import LocalUplink

CONFIG = Path(__file__).parents[1] / "configs" / "debug.yaml"
CUTS = {"small_cnn": "stage2", "resnet18": "layer1", "mobilenet_v3_small": "stage2"}
BATCH, SIZE, IMAGES = 64, 64, 520
ROUNDS = 9
LIMIT = 1.05


def plain_epoch(edge, tail, data, optimizers, clip, sigma) -> None:
    """One epoch in plain PyTorch."""
    edge_optimizer, tail_optimizer = optimizers
    edge.train()
    tail.train()
    records = torch.from_numpy(data.splits.train)
    for rows in records[torch.randperm(len(records))].split(BATCH):
        pixels = torch.from_numpy(data.images[rows.numpy()])
        flip = torch.rand(len(pixels)) < 0.5
        pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
        labels, secret = data.task[rows][:, 0], data.sensitive[rows][:, 0]
        z = edge.features(normalize(pixels))
        z = z * (clip / z.flatten(1).norm(dim=1).clamp_min(clip))[:, None]
        z = z + sigma * torch.randn_like(z)
        loss = functional.cross_entropy(edge.task_logits(z)[0], labels)
        loss = loss + functional.cross_entropy(edge.adversary_logits(z.detach())[0], secret)
        edge_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        edge_optimizer.step()
        loss = functional.cross_entropy(tail(z.detach())[0], labels)
        tail_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        tail_optimizer.step()


def config_for(backbone: str):
    return load_config(
        CONFIG,
        [
            f"dataset.image_size={SIZE}",
            f"dataset.options.images={IMAGES}",
            f"dataset.options.identities={IMAGES // 4}",
            "dataset.sensitive=[male]",
            f"model.backbone={backbone}",
            f"model.cut={CUTS[backbone]}",
            "model.exit_hidden=64",
            "defense.name=none",
            "schedule.pretrain_epochs=0",
            "schedule.joint_epochs=1",
            "schedule.cloud_epochs=0",
            "training.augment.shift=0",
            f"training.batch_size={BATCH}",
        ],
    )


def measure(backbone: str, data, config) -> None:
    mechanism = build_mechanism(config, len(data.splits.train))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            config,
            data,
            mechanism,
            RunFolder(Path(scratch)),
            device=torch.device("cpu"),
            keep=data.splits.train[:100],
        )
        edge, tail = build_model(config, data)
        optimizers = [torch.optim.AdamW(module.parameters(), lr=1e-3) for module in (edge, tail)]

        def ours(epoch: int) -> None:
            trainer.releaser.charge("train", "joint", epoch, len(data.splits.train))
            trainer.cloud.kept.clear()
            trainer.side._epoch("joint", epoch, uplink=LocalUplink(trainer.cloud.receive_and_train))

        ratios: dict[str, list[float]] = {"wall": [], "processor": []}
        for number in range(ROUNDS + 1):
            clocks = [(time.perf_counter(), time.process_time())]
            ours(number)
            clocks.append((time.perf_counter(), time.process_time()))
            plain_epoch(edge, tail, data, optimizers, config.release.clip, mechanism.sigma)
            clocks.append((time.perf_counter(), time.process_time()))
            if number:  # the first round warms up
                for found, started, middle, ended in zip(ratios.values(), *clocks, strict=True):
                    found.append((middle - started) / (ended - middle))
    steps = len(list(shuffled_batches(data.splits.train, BATCH, 0, "joint", 0)))
    print(
        f"{backbone} cut {CUTS[backbone]}, {ROUNDS} pairs of epochs of {steps} steps of {BATCH}:", flush=True
    )
    for name, found in ratios.items():
        spread = f"median {statistics.median(found):.3f}, min {min(found):.3f}, max {max(found):.3f}"
        print(f"  ours / plain loop, {name} time: {spread}", flush=True)


def main() -> None:
    print(f"training step at {SIZE}x{SIZE}; wanted: at most {LIMIT:.2f}")
    data = None
    for backbone in sys.argv[1:] or CUTS:
        config = config_for(backbone)
        torch.set_num_threads(int(config.runtime.threads))
        if data is None:
            data = prepare(config, load_dataset(config.dataset, seed=0)).data
        measure(backbone, data, config)


if __name__ == "__main__":
    main()
