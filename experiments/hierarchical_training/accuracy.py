"""Task accuracy of training in the cloud on images against joint training and release-once.

    python experiments/hierarchical_training/accuracy.py --seeds 0 1 2 --write
    python experiments/hierarchical_training/accuracy.py --networks resnet18_32 --epochs 2

In one process with all cores: weights do not depend on the line. ``cloud`` trains the uncut network,
bottleneck included, on images (so do images up once, split learning and training on the edge alone, up to
the order of batches); ``cloud_jpeg50`` and its like train and are scored on pictures that went through that
codec. All regimes look at every image equally often, with the same batches, augmentation,
loss and optimizer. Scored on the test split: the whole network on images, the tail on releases. Finished
cells are skipped.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from measure import CIFAR10, NETWORKS, config_path
from pictures import DECODERS, ENCODERS, FORMATS, Pixels
from whole_network import Facts, WholeTrainer, study_config

from privhier.config import RunConfig
from privhier.metrics.classification import balanced_accuracy, macro_auc
from privhier.models.inputs import normalize
from privhier.seeding import isolated_rng
from privhier.session import Session, open_session, train
from privhier.storage.files import write_atomic, write_json
from privhier.training.batches import batch_count, shuffled_batches
from privhier.training.cloud import cloud_logits
from privhier.training.draws import EdgeDraws
from privhier.training.edge import edge_exit_logits

HERE = Path(__file__).parent
CODED = tuple(f"cloud_{codec}" for codec in FORMATS)
REGIMES = ("cloud", "cloud_wide", *CODED, "joint", "joint_wide", "release_once", "release_once_wide")


def cell_config(network: str, regime: str, seed: int, options: argparse.Namespace) -> RunConfig:
    """The run of a cell: the network's configuration with the regime's schedule."""
    path = str(config_path(network))
    overrides = [f"seed={seed}", f"runtime.device={options.device}", "runtime.threads=auto", *options.set]
    config = study_config(path, overrides, wide=False)
    epochs = options.epochs or config.schedule.joint_epochs
    alone, cloud = options.pretrain or epochs // 2, options.cloud or epochs // 2
    counts = (alone, 0, cloud) if regime.startswith("release_once") else (0, epochs, 0)
    names = ("pretrain_epochs", "joint_epochs", "cloud_epochs")
    overrides += [f"schedule.{name}={count}" for name, count in zip(names, counts, strict=True)]
    return study_config(path, overrides, wide=regime.endswith("_wide"))


def as_received(pixels: Pixels, codec: str) -> torch.Tensor:
    """A batch ``(B, 3, S, S)`` of uint8 as the cloud decodes it."""
    body = ENCODERS[codec](pixels)
    return torch.from_numpy(DECODERS[codec](body, len(pixels), pixels.shape[-1]).copy())


def train_in_cloud(session: Session, codec: str) -> npt.NDArray[np.float32]:
    """Train the whole network on images for as many epochs; probabilities on the test split."""
    config, data, device = session.config, session.prepared.data, session.device
    epochs, size = config.schedule.joint_epochs, config.training.batch_size
    train_records = data.splits.train
    steps = batch_count(len(train_records), size) * epochs
    facts = Facts(data.image_size, data.task_classes, len(train_records))
    trainer = WholeTrainer(config, facts, total_steps=steps, device=device)
    for epoch in range(epochs):
        with isolated_rng(config.seed, "dropout", "joint", epoch):
            for records in shuffled_batches(train_records, size, config.seed, "joint", epoch):
                moves = EdgeDraws(config).augmentation("joint", epoch, 0, records)
                trainer.step(as_received(data.images[records], codec), data.task[records], moves)
    network = trainer.network.eval()
    test = data.splits.test
    parts = []
    with torch.no_grad():
        for start in range(0, len(test), 256):
            pixels = normalize(as_received(data.images[test[start : start + 256]], codec).to(device))
            parts.append(torch.softmax(network(pixels)[0].float(), 1).cpu())
    return torch.cat(parts).numpy()


def score(probabilities: npt.NDArray[np.float32], session: Session) -> dict[str, float]:
    """Balanced accuracy and AUC of the first task on the test split."""
    data = session.prepared.data
    truth = data.task[data.splits.test, 0].numpy()
    accuracy = balanced_accuracy(probabilities.argmax(1), truth, probabilities.shape[1])
    return {"balanced_accuracy": accuracy, "auc": macro_auc(probabilities, truth)}


def run_cell(network: str, regime: str, seed: int, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train one cell in the empty folder ``work`` and score it."""
    config = cell_config(network, regime, seed, options)
    session, began = open_session(config, work), time.perf_counter()
    exits: dict[str, float] = {}
    if regime.startswith("cloud"):
        codec = regime.removeprefix("cloud_") if regime in CODED else "raw"
        scores = score(train_in_cloud(session, codec), session)
    else:
        trained, cpu = train(session), torch.device("cpu")
        releases = np.asarray(trained.test_releases[:, -1])
        logits = cloud_logits(trained.tail, releases, device=cpu)[0]
        scores = score(torch.softmax(logits, 1).numpy(), session)
        exit_logits = edge_exit_logits(trained.edge, torch.from_numpy(np.array(releases)), device=cpu)[0]
        exits = score(torch.softmax(exit_logits.float(), 1).numpy(), session)
    splits = session.prepared.data.splits
    return {
        "network": network,
        "cut": config.model.cut,
        "regime": regime,
        "seed": seed,
        "epochs": config.schedule.model_dump(),
        "n_train": len(splits.train),
        "n_test": len(splits.test),
        "config": config.hash(),
        "seconds": time.perf_counter() - began,
        **scores,
        **{f"exit_{name}": value for name, value in exits.items()},
    }


def cell_path(network: str, regime: str, seed: int, options: argparse.Namespace) -> Path:
    """Where a cell is kept: another size or other epochs make another cell."""
    key = cell_config(network, regime, seed, options).hash()[:10]
    path: Path = options.out / "cells" / f"{network}_{regime}_{seed}_{key}.json"
    return path


def _place(cell: Mapping[str, Any]) -> tuple[str, str]:
    return cell["network"], cell["cut"]


def summary(cells: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a network, cut and regime: means over seeds, and the points to training in the cloud.

    The difference is taken seed by seed against the network of the same width.
    """
    found = {(*_place(cell), cell["regime"], cell["seed"]): cell for cell in cells}
    rows = []
    for place, regime in dict.fromkeys((_place(cell), cell["regime"]) for cell in cells):
        own = [cell for cell in cells if (_place(cell), cell["regime"]) == (place, regime)]
        base = "cloud_wide" if regime.endswith("_wide") else "cloud"
        pairs = [(cell, found.get((*place, base, cell["seed"]))) for cell in own]
        row = {"network": place[0], "cut": place[1], "regime": regime, "seeds": len(own)}
        row |= {name: own[0][name] for name in ("n_train", "n_test")}
        for name in ("balanced_accuracy", "auc"):
            row[name] = float(np.mean([cell[name] for cell in own]))
            gaps = [100 * (cell[name] - other[name]) for cell, other in pairs if other is not None]
            row[f"{name}_points"] = float(np.mean(gaps)) if gaps else None
        exits = [cell["exit_balanced_accuracy"] for cell in own if "exit_balanced_accuracy" in cell]
        row["exit_balanced_accuracy"] = float(np.mean(exits)) if exits else None
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows."""
    print(
        f"{'network':16s} {'cut':8s} {'regime':18s} {'train/test':>12s}  balanced accuracy (points)  "
        "AUC (points)  exit's balanced accuracy"
    )
    for row in rows:
        texts = []
        for name in ("balanced_accuracy", "auc"):
            gap = row[f"{name}_points"]
            texts.append(f"{row[name]:.4f} ({'no pair' if gap is None else f'{gap:+.2f}'})")
        sizes, own = f"{row['n_train']}/{row['n_test']}", row["exit_balanced_accuracy"]
        print(
            f"{row['network']:16s} {row['cut']:8s} {row['regime']:18s} {sizes:>12s}  {'     '.join(texts)}"
            f"  {'-' if own is None else f'{own:.4f}'}  ({row['seeds']} seeds)"
        )


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The small table this study keeps."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def main() -> None:
    """Train what is not trained yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/hierarchical_accuracy"))
    parser.add_argument("--networks", nargs="+", choices=(*NETWORKS, *CIFAR10), default=list(NETWORKS))
    parser.add_argument("--cuts", nargs="+", default=[None], help="default: the configuration's")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=["cloud", "joint", "release_once"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="default: the configuration's joint epochs")
    parser.add_argument("--pretrain", type=int, help="release-once, on the edge; default: half of them")
    parser.add_argument("--cloud", type=int, help="release-once, in the cloud; default: half of them")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more overrides")
    parser.add_argument("--write", action="store_true", help="write accuracy.csv")
    parser.add_argument("--folder", type=Path, default=HERE, help="where; default: beside this file")
    options = parser.parse_args()
    cells, common = [], list(options.set)
    options.out.mkdir(parents=True, exist_ok=True)
    for network, cut, regime, seed in product(options.networks, options.cuts, options.regimes, options.seeds):
        options.set = common if cut is None else [*common, f"model.cut={cut}"]
        path = cell_path(network, regime, seed, options)
        if not path.exists():
            print(f"{network} {cut or ''} {regime} seed {seed}", flush=True)
            # A folder of its own: of two processes that begin the same cell neither may empty the other's.
            with tempfile.TemporaryDirectory(prefix=f"{path.stem}_", dir=options.out) as work:
                write_json(path, run_cell(network, regime, seed, options, Path(work)))
        cells.append(json.loads(path.read_text()))
    rows = summary(cells)
    show(rows)
    if options.write:
        write_atomic(options.folder / "accuracy.csv", to_csv(rows))


if __name__ == "__main__":
    main()
