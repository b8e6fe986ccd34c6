"""What one would do otherwise, as two processes over a line: images up, split learning, all on the edge.

    python baselines.py cloud CONFIG --regime images_raw_anew --epochs 2 --host 10.77.0.1 --out cloud.json
    python baselines.py edge CONFIG --regime images_raw_anew --epochs 2 --cloud 10.77.0.1:PORT --out edge.json
    python baselines.py edge CONFIG --regime edge_only --epochs 2 --out edge.json

The cloud prints its port. ``measure.py`` starts both ends of a shaped line. Each writes one entry an epoch:
seconds, busy (computing) and wait (for the line or the other side) seconds, images, bytes, and bytes of the
wire as its own network interface counts them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from byte_stream import CloudPort, EdgePort, pack, unpack
from pictures import DECODERS, ENCODERS
from regimes import IMAGES
from torch import Tensor
from whole_network import Facts, WholeTrainer, augmentation_stream, halves, load_data, study_config

from privhier.config import RunConfig
from privhier.models.inputs import augment, normalize
from privhier.training.batches import TrainingData, batch_count, shuffled_batches
from privhier.training.cloud import mean_task_loss
from privhier.training.optimize import build_optimizer

REGIMES = (*IMAGES, "split", "edge_only")
WINDOW = 8
"""Batches the edge may be ahead of the cloud."""
WARM_UP = 3
"""Steps before anything is timed."""
CPU = torch.device("cpu")


class Clock:
    """One entry an epoch; what is not busy is waiting."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._start()

    def _start(self) -> None:
        self._began, self._wire = time.perf_counter(), interface_bytes()
        self._busy, self._images, self._up, self._down = 0.0, 0, 0, 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the block as computing."""
        began = time.perf_counter()
        yield
        self._busy += time.perf_counter() - began

    def batch(self, images: int, *, up: int = 0, down: int = 0) -> None:
        """Count a batch and its bytes."""
        self._images += images
        self._up += up
        self._down += down

    def end_epoch(self) -> None:
        """Close the entry and open the next."""
        seconds, wire = time.perf_counter() - self._began, interface_bytes()
        self.epochs.append(
            {
                "epoch": len(self.epochs),
                "seconds": seconds,
                "busy_seconds": self._busy,
                "wait_seconds": seconds - self._busy,
                "images": self._images,
                "bytes_up": self._up,
                "bytes_down": self._down,
                "wire_sent": wire[0] - self._wire[0],
                "wire_received": wire[1] - self._wire[1],
            }
        )
        self._start()


def interface_bytes() -> tuple[int, int]:
    """Bytes sent and received so far by the interfaces of this namespace, loopback left out."""
    folders = [path / "statistics" for path in Path("/sys/class/net").iterdir() if path.name != "lo"]
    sent, received = (
        sum(int((folder / name).read_text()) for folder in folders) for name in ("tx_bytes", "rx_bytes")
    )
    return sent, received


def edge_images(config: RunConfig, data: TrainingData, port: EdgePort, regime: str, epochs: int) -> Clock:
    """Send every training image, in every epoch or in the first only."""
    _, codec, how = regime.split("_")
    encode, clock = ENCODERS[codec], Clock()
    for epoch in range(epochs if how == "anew" else 1):
        for records, last in _batches(config, data, epoch):
            with clock.busy():
                body = encode(data.images[records])
                message = pack(epoch, last, data.task[records].numpy(), body)
            port.send(message)
            clock.batch(len(records), up=len(message))
        clock.end_epoch()
    return clock


def cloud_images(config: RunConfig, facts: Facts, port: CloudPort, regime: str, epochs: int) -> Clock:
    """Train the whole network on images as they arrive; ``once``: then on those it has kept."""
    _, codec, how = regime.split("_")
    size, batch = facts.image_size, config.training.batch_size
    decode = DECODERS[codec]
    steps = batch_count(facts.n_train, batch) * epochs
    trainer = WholeTrainer(config, facts, total_steps=steps, device=CPU)
    _warm_up(trainer, facts, batch)
    kept: list[tuple[Tensor, Tensor]] = []
    draws = augmentation_stream(config, 0)
    port.reply()  # ready: answers the edge's first message
    clock = Clock()
    while (message := port.receive()) is not None:
        port.reply()
        with clock.busy():
            epoch, last, labels, body = unpack(message)
            pixels = torch.from_numpy(decode(body, len(labels), size).copy())
            trainer.step(pixels, torch.from_numpy(labels), draws)
            if how == "once":
                kept.append((pixels, torch.from_numpy(labels)))
        clock.batch(len(labels), up=len(message))
        if last:
            clock.end_epoch()
            draws = augmentation_stream(config, epoch + 1)
    if kept:
        images, answers = (torch.cat(parts) for parts in zip(*kept, strict=True))
        clock = _cached_epochs(config, trainer, images, answers, epochs, clock)
    return clock


def _cached_epochs(
    config: RunConfig, trainer: WholeTrainer, images: Tensor, labels: Tensor, epochs: int, clock: Clock
) -> Clock:
    rows = np.arange(len(labels))
    for epoch in range(1, epochs):
        draws = augmentation_stream(config, epoch)
        for batch in shuffled_batches(rows, config.training.batch_size, config.seed, "joint", epoch):
            with clock.busy():
                trainer.step(images[batch], labels[batch], draws)
            clock.batch(len(batch))
        clock.end_epoch()
    return clock


def edge_split(config: RunConfig, data: TrainingData, facts: Facts, port: EdgePort, epochs: int) -> Clock:
    """Features up, gradients down, one batch after the other (Vepakomma and others, 2018)."""
    front = halves(config, facts)[0].train()
    optimizer = build_optimizer(front.parameters(), config.training.edge)
    options, clock = config.training.augment, Clock()
    for epoch in range(epochs):
        draws = augmentation_stream(config, epoch)
        for records, last in _batches(config, data, epoch):
            with clock.busy():
                moved = augment(data.pixels(records), options.flip, options.shift, draws)
                z = front(normalize(moved))
                message = pack(epoch, last, data.task[records].numpy(), z.detach().numpy().tobytes())
            answer = port.exchange(message)
            with clock.busy():
                gradient = torch.from_numpy(np.frombuffer(answer, np.float32).copy()).view_as(z)
                optimizer.zero_grad(set_to_none=True)
                z.backward(gradient)
                optimizer.step()
            clock.batch(len(records), up=len(message), down=len(answer))
        clock.end_epoch()
    return clock


def cloud_split(config: RunConfig, facts: Facts, port: CloudPort) -> Clock:
    """Train the tail, answer with the loss's gradient with respect to the features."""
    front, tail = halves(config, facts)
    with torch.no_grad():
        shape = front(torch.zeros(2, 3, facts.image_size, facts.image_size)).shape[1:]
    optimizer = build_optimizer(tail.train().parameters(), config.training.cloud)
    port.reply()
    clock = Clock()
    while (message := port.receive()) is not None:
        with clock.busy():
            _, last, labels, body = unpack(message)
            z = torch.from_numpy(np.frombuffer(body, np.float32).copy()).view(len(labels), *shape)
            z.requires_grad_()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(mean_task_loss(tail(z), torch.from_numpy(labels)))
            optimizer.step()
            assert z.grad is not None
            answer = z.grad.numpy().tobytes()
        port.reply(answer)
        clock.batch(len(labels), up=len(message), down=len(answer))
        if last:
            clock.end_epoch()
    return clock


def edge_only(config: RunConfig, data: TrainingData, facts: Facts, epochs: int) -> Clock:
    """The whole network on the edge; nothing leaves it."""
    steps = batch_count(facts.n_train, config.training.batch_size) * epochs
    trainer = WholeTrainer(config, facts, total_steps=steps, device=CPU)
    _warm_up(trainer, facts, config.training.batch_size)
    clock = Clock()
    for epoch in range(epochs):
        draws = augmentation_stream(config, epoch)
        for records, _ in _batches(config, data, epoch):
            with clock.busy():
                trainer.step(data.pixels(records), data.task[records], draws)
            clock.batch(len(records))
        clock.end_epoch()
    return clock


def _batches(config: RunConfig, data: TrainingData, epoch: int) -> Iterator[tuple[Any, bool]]:
    size, train = config.training.batch_size, data.splits.train
    count = batch_count(len(train), size)
    for number, records in enumerate(shuffled_batches(train, size, config.seed, "joint", epoch)):
        yield records, number == count - 1


def _warm_up(trainer: WholeTrainer, facts: Facts, batch: int) -> None:
    pixels = torch.zeros(batch, 3, facts.image_size, facts.image_size, dtype=torch.uint8)
    labels = torch.zeros(batch, len(facts.task_classes), dtype=torch.int64)
    for _ in range(WARM_UP):
        trainer.step(pixels, labels, torch.Generator().manual_seed(0))


def run_edge(options: argparse.Namespace, config: RunConfig) -> Clock:
    """The edge's role."""
    data, facts = load_data(config)
    if options.regime == "edge_only":
        return edge_only(config, data, facts, options.epochs)
    port = EdgePort(options.cloud, window=WINDOW)
    port.exchange(json.dumps(dataclasses.asdict(facts)).encode())
    if options.regime == "split":
        clock = edge_split(config, data, facts, port, options.epochs)
    else:
        clock = edge_images(config, data, port, options.regime, options.epochs)
    port.close()
    return clock


def run_cloud(options: argparse.Namespace, config: RunConfig) -> Clock:
    """The cloud's role."""
    port = CloudPort(options.host, window=WINDOW)
    print(port.port, flush=True)
    hello = port.receive()
    assert hello is not None
    facts = Facts(**json.loads(hello))
    if options.regime == "split":
        clock = cloud_split(config, facts, port)
    else:
        clock = cloud_images(config, facts, port, options.regime, options.epochs)
    port.close()
    return clock


def main() -> None:
    """Play one role and write its entries."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("role", choices=("edge", "cloud"))
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--regime", choices=REGIMES, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--wide", action="store_true", help="without the bottleneck")
    parser.add_argument("--host", default="127.0.0.1", help="cloud: where to listen")
    parser.add_argument("--cloud", help="edge: HOST:PORT of the cloud")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    config = study_config(options.config, options.overrides, wide=options.wide)
    clock = run_edge(options, config) if options.role == "edge" else run_cloud(options, config)
    options.out.write_text(json.dumps(clock.epochs, indent=1))


if __name__ == "__main__":
    main()
