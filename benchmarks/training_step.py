"""Our training step against a hand-written loop of the same network: a ratio measured in one run.

The hand-written loop does the same arithmetic with plain PyTorch: augment, forward through edge and
exits, clip and noise, backward, optimizer; then the tail on the detached features. Ours adds the
defense contract, the ledger, encoding to bytes, the uplink and decoding.
"""

from __future__ import annotations

import statistics
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

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
ROUNDS = 7
LIMIT = 1.10


def plain_epoch(edge, tail, data, optimizers, clip, sigma) -> None:
    """One epoch in plain PyTorch."""
    edge_optimizer, tail_optimizer = optimizers
    edge.train()
    tail.train()
    records = torch.from_numpy(data.splits.train)
    for rows in records[torch.randperm(len(records))].split(128):
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


def main() -> None:
    config = load_config(
        CONFIG,
        [
            "dataset.sensitive=[male]",
            "defense.name=none",
            "schedule.pretrain_epochs=0",
            "schedule.joint_epochs=1",
            "schedule.cloud_epochs=0",
            "training.augment.shift=0",
        ],
    )
    torch.set_num_threads(int(config.runtime.threads))
    data = prepare(config, load_dataset(config.dataset, seed=0)).data
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

        ratios = []
        for number in range(ROUNDS + 1):
            started = time.perf_counter()
            ours(number)
            middle = time.perf_counter()
            plain_epoch(edge, tail, data, optimizers, config.release.clip, mechanism.sigma)
            ended = time.perf_counter()
            if number:  # the first round warms up
                ratios.append((middle - started) / (ended - middle))
    steps = len(list(shuffled_batches(data.splits.train, 128, 0, "joint", 0)))
    spread = f"median {statistics.median(ratios):.3f}, min {min(ratios):.3f}, max {max(ratios):.3f}"
    print(f"training step, {len(ratios)} pairs of epochs of {steps} steps:")
    print(f"  ours / plain loop: {spread}")
    print(f"  wanted: at most {LIMIT:.2f}")


if __name__ == "__main__":
    main()
