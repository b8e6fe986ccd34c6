"""An epoch of a recipe here against the same epoch of another checkout: a ratio, in alternating pairs.

Both checkouts train the recipe in a process of their own, with their own interpreter and the same threads,
and take turns epoch by epoch: `python benchmarks/epoch.py OTHER [CONFIG [KEY=VALUE]...]`, for instance
`../before configs/utkface_gender_race.yaml dataset.limit=4000`. What is timed is a whole epoch of
pre-training: steps, validation metrics and checkpoint. Wall time and processor time stand side by side:
beside other work only the latter is worth anything.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

from privhier.config import load_config
from privhier.datasets.load import load_dataset
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trainer import Trainer

HERE = Path(__file__).parents[1]
RECIPE = "configs/utkface_gender_race.yaml"
PAIRS, WANTED = 9, 1.3


def serve(arguments: list[str]) -> None:
    """One epoch for every line on standard input; answers with wall and processor seconds."""
    config = load_config(arguments[0], arguments[1:])
    torch.set_num_threads(int(config.runtime.threads))
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch))
        occupy(folder, config, "0" * 64)
        mechanism = build_mechanism(config, len(data.splits.train))
        keep = data.splits.train[:100]
        trainer = Trainer(config, data, mechanism, folder, device=torch.device("cpu"), keep=keep)
        print("ready", flush=True)
        for number, _ in enumerate(sys.stdin):
            wall, processor = time.perf_counter(), time.process_time()
            metrics = trainer.side.pretrain(number % config.schedule.pretrain_epochs)
            trainer._save(number + 1)
            spent = time.perf_counter() - wall, time.process_time() - processor
            print(*spent, metrics["edge_loss"], flush=True)


class Checkout:
    """A checkout at work in its own process."""

    def __init__(self, root: Path, arguments: list[str]) -> None:
        command = [str(root / ".venv" / "bin" / "python"), str(Path(__file__).absolute()), "--serve"]
        self.process = subprocess.Popen(
            [*command, *arguments], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{root} did not start")

    def epoch(self) -> tuple[float, float, float]:
        """Wall seconds, processor seconds and mean loss of one epoch."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        wall, processor, loss = map(float, self.process.stdout.readline().split())
        return wall, processor, loss

    def end(self) -> None:
        """No more epochs."""
        self.process.stdin.close()
        self.process.wait()


def main(arguments: list[str]) -> None:
    other, recipe = Path(arguments[0]).absolute(), str(HERE / (arguments[1:] or [RECIPE])[0])
    given = [recipe, *arguments[2:]]
    ours, theirs = Checkout(HERE, given), Checkout(other, given)
    wall, processor, losses = [], [], []
    for number in range(PAIRS + 1):
        before, after = theirs.epoch(), ours.epoch()
        losses.append(abs(before[2] - after[2]))
        if number:  # the first pair warms up
            wall.append(before[0] / after[0])
            processor.append(before[1] / after[1])
    ours.end()
    theirs.end()
    print(f"an epoch of {recipe.rsplit('/', 1)[-1]} {' '.join(arguments[2:])}, {PAIRS} pairs:")
    for name, found in (("wall", wall), ("processor", processor)):
        spread = f"median {statistics.median(found):.3f}, min {min(found):.3f}, max {max(found):.3f}"
        print(f"  other / ours, {name} time: {spread}")
    print(f"  largest difference of two mean losses: {max(losses):.2g}")
    print(f"  wanted: at least {WANTED:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2:])
    else:
        main(sys.argv[1:])
