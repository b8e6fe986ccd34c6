"""Measure the grid of networks, regimes and bit rates, one cell after the other; what is measured is kept.

    python experiments/hierarchical_training/measure.py --out runs/hierarchical
    python experiments/hierarchical_training/measure.py --quick --out runs/hierarchical_quick
    python experiments/hierarchical_training/measure.py --cells 'resnet18_32/joint.*/(1|5)' --again

A cell is NETWORK/REGIME/RATE; ``--cells`` takes those a regular expression matches whole. First every
network's parts are measured by themselves (``stages.py``); the model then says how many images a cell can
train on within ``--seconds`` an epoch. ``table.py`` makes tables and the figure of the folder. Run it on a
quiet machine: every record holds the load it met.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regimes import IMAGES, OURS, REGIMES, SPLIT, Stages, base_regime, codec_of, phase_ms
from runner import CellError, run_cell
from stages import measure_all, payload_bytes, stages_of
from whole_network import study_config

from privhier.config import RunConfig
from privhier.storage.files import write_json

HERE = Path(__file__).parent
NETWORKS = ("resnet18_32", "vgg16_32", "resnet18_64", "vgg16_64")
CIFAR10 = ("resnet18_cifar10", "vgg16_cifar10")
"""On CIFAR-10 (``experiments/cifar10/``), where its images have been unpacked: asked for by name."""
RATES = (0.25, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
MEASURED: dict[str, tuple[float, ...]] = {
    "images_raw_anew": (0.25, 1.0, 5.0, 20.0, 100.0),
    "images_jpeg_anew": (0.25, 1.0, 5.0, 20.0),
    "images_jpeg50_anew": (1.0,),
    "images_webp50_anew": (1.0,),
    "images_raw_once": (1.0, 20.0),
    "images_jpeg_once": (1.0,),
    "images_jpeg50_once": (1.0,),
    "images_webp50_once": (1.0,),
    "split": (1.0, 5.0, 20.0, 100.0),
    "split_wide": (5.0, 20.0, 100.0),
    "edge_only": (1.0,),
    "joint": (0.25, 1.0, 2.0, 5.0, 20.0, 100.0),
    "joint_wide": (1.0, 5.0, 20.0),
    "release_once": (0.25, 1.0, 20.0),
    "release_once_wide": (5.0,),
}
"""What a rate cannot change much is measured at few of them; the model has the others."""
QUICK = r"resnet18_32/(images_raw_anew|images_jpeg_anew|joint|release_once)/(1|20)"
OVERHEAD = 1.06
"""Bytes on the line per byte of payload, before anything is measured."""
BATCH = 32


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    network: str
    regime: str
    rate_mbit: float

    @property
    def name(self) -> str:
        """NETWORK/REGIME/RATE."""
        return f"{self.network}/{self.regime}/{self.rate_mbit:g}"

    def path(self, out: Path) -> Path:
        """Where its record is kept."""
        return out / "cells" / f"{self.name.replace('/', '__')}.json"


@dataclass(frozen=True)
class Profile:
    """A network's parts by themselves, at one width."""

    stages: Stages
    parts: dict[str, dict[str, float]]
    sizes: dict[str, float]

    def payload(self, regime: str) -> tuple[float, float]:
        """Bytes per image, up and down, of an epoch that sends."""
        kind = base_regime(regime)
        if kind in IMAGES:
            return self.sizes[codec_of(kind)], 0.0
        if kind == "split":
            return self.sizes["features"], self.sizes["features"]
        return (0.0, 0.0) if kind == "edge_only" else (self.sizes["release"], 0.0)

    def predict(self, regime: str, rate_mbit: float) -> dict[str, float]:
        """Milliseconds per image of each phase, from parts and sizes alone."""
        up, down = (OVERHEAD * size for size in self.payload(regime))
        return phase_ms(regime, self.stages, up, down, rate_mbit)


def grid(networks: tuple[str, ...] = NETWORKS, rates: list[float] | None = None) -> Iterator[Cell]:
    """All cells that are measured; ``rates`` instead of each regime's own."""
    for network in networks:
        for regime in REGIMES:
            for rate in rates or MEASURED[regime]:
                yield Cell(network, regime, rate)


def chosen(cells: Iterator[Cell], pattern: str) -> list[Cell]:
    """Those whose whole name matches."""
    return [cell for cell in cells if re.fullmatch(pattern, cell.name)]


def profile(network: str, out: Path, *, wide: bool, seconds: float = 4.0) -> Profile:
    """Read a network's parts, or measure them first."""
    path = out / f"profile_{network}{'_wide' if wide else ''}.json"
    if not path.exists():
        print(f"{network}{' without bottleneck' if wide else ''}: parts by themselves", flush=True)
        config = study_config(str(config_path(network)), [], wide=wide)
        parts = measure_all(str(config_path(network)), [], wide=wide, seconds=seconds)
        write_json(path, {"parts": parts, "sizes": payload_bytes(config), "load": os.getloadavg()[0]})
    data = json.loads(path.read_text())
    return Profile(stages_of(data["parts"]), data["parts"], data["sizes"])


def config_path(network: str) -> Path:
    """The network's configuration."""
    folder = HERE.parent / "cifar10" if network in CIFAR10 else HERE
    return folder / f"{network}.yaml"


def images_for(phases: dict[str, float], *, seconds: float, most: int, batch: int = BATCH) -> int:
    """Whole batches whose longest phase stays within ``seconds``: at least four of them, at most ``most``."""
    batches = int(seconds * 1000 / max(phases.values()) / batch)
    return batch * max(4, min(batches, most // batch))


def measure(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Run one cell and keep its record."""
    config: RunConfig = study_config(str(config_path(cell.network)), [], wide=False)
    parts = profile(cell.network, options.out, wide=cell.regime.endswith("_wide"))
    phases = parts.predict(cell.regime, cell.rate_mbit)
    images = images_for(
        phases, seconds=options.seconds, most=options.images, batch=config.training.batch_size
    )
    load = os.getloadavg()[0]
    record = run_cell(
        config_path(cell.network),
        config,
        cell.regime,
        cell.rate_mbit,
        images=images,
        epochs=options.epochs,
        timeout=120 + 4 * options.epochs * images * sum(phases.values()) / 1000,
        work=options.out / "work" / cell.name.replace("/", "__"),
        relay=options.relay,
    )
    record |= {"predicted": phases, "load": load}
    write_json(cell.path(options.out), record)
    return record


def show(cell: Cell, record: dict[str, Any]) -> None:
    """One line a cell: phases measured and predicted in ms per image, bytes on the line per image."""
    phases = ", ".join(
        f"{name} {value:.2f} (model {record['predicted'][name]:.2f})"
        for name, value in record["phases"].items()
    )
    print(
        f"{cell.name:36s} {record['images']:5d} images: {phases} ms/image; "
        f"{record['up']:.0f} B up, {record['down']:.0f} B down; load {record['load']:.1f}",
        flush=True,
    )


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/hierarchical"))
    parser.add_argument("--cells", default=".*", help="regular expression on NETWORK/REGIME/RATE")
    parser.add_argument("--networks", nargs="+", choices=(*NETWORKS, *CIFAR10), default=list(NETWORKS))
    parser.add_argument("--rates", type=float, nargs="+", help="Mbit/s, instead of each regime's own")
    parser.add_argument("--images", type=int, default=1280, help="most training images an epoch")
    parser.add_argument("--seconds", type=float, default=40.0, help="of one epoch, as predicted")
    parser.add_argument("--epochs", type=int, default=3, help="the first is a warm-up")
    parser.add_argument("--quick", action="store_true", help="a few small cells: does it work here?")
    parser.add_argument("--again", action="store_true", help="measure finished cells anew")
    parser.add_argument("--relay", action="store_true", help="no namespaces: a token bucket over loopback")
    parser.add_argument("--list", action="store_true", help="print the cells and stop")
    options = parser.parse_args()
    if options.quick:
        options.cells, options.images, options.seconds, options.epochs = QUICK, 128, 5.0, 2
    # A terminated study takes its namespaces and processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cells = chosen(grid(tuple(options.networks), options.rates), options.cells)
    failed = 0
    for cell in cells:
        if options.list:
            print(cell.name)
            continue
        path = cell.path(options.out)
        try:
            if path.exists() and not options.again:
                record = json.loads(path.read_text())
            else:
                record = measure(cell, options)
            show(cell, record)
        except CellError as error:
            failed += 1
            print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
    if failed:
        raise SystemExit(f"{failed} of {len(cells)} cells failed; start again to try them again")


assert set(MEASURED) == set(REGIMES) == {*IMAGES, *SPLIT, *OURS, "edge_only"}

if __name__ == "__main__":
    main()
