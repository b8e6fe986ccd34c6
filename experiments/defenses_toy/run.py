"""Every registered defense on two worlds with a known answer: a table on the screen and ``table.csv``.

    python experiments/defenses_toy/run.py [DEFENSE ...]

With names only those are run, and the table on disk is left alone.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from toy_scores import NO_CLAIM, Row, World, places, score, suppresses
from toy_training import SIGMA, Kind
from toy_worlds import Discrete, LinearGaussian

from privhier.defenses.base import defenses

SEEDS = 3
NUMBERS = ("task", "leakage", "floor", "optimum_task", "optimum_leakage", "best_task")
HEAD = ("world", "release", "defense", "task", "leakage", "attacker", "excess", "distance", "suppresses")


def main() -> None:
    """Run what was asked for, print the table, write it where all were."""
    torch.set_num_threads(1)
    names = list(dict.fromkeys(sys.argv[1:] or defenses.names()))
    wanted = sorted({(*place, name) for name in names for place in places(name)})
    bare: dict[tuple[World, Kind], Row] = {}
    lines = []
    for world, kind, name in wanted:
        if (world, kind) not in bare:
            bare[world, kind] = mean_row("none", world, kind)
        row = bare[world, kind] if name == "none" else mean_row(name, world, kind)
        lines.append(_cells(row, bare[world, kind]))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for text in _worlds(list(bare.values())):
        print(text)
    widths = [max(len(line[column]) for line in [HEAD, *lines]) for column in range(len(HEAD))]
    for line in [HEAD, *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if len(sys.argv) == 1:
        with (Path(__file__).parent / "table.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([HEAD, *lines])


def mean_row(name: str, world: World, kind: Kind) -> Row:
    """Mean over the seeds; the attacker is the one that won most often."""
    rows = [score(name, world, kind, seed=seed) for seed in range(SEEDS)]
    means = {field: sum(getattr(row, field) for row in rows) / SEEDS for field in NUMBERS}
    winners = [row.attacker for row in rows]
    return Row(name, world, kind, attacker=max(winners, key=winners.count), **means)


def _worlds(rows: list[Row]) -> list[str]:
    """What theory says of each world."""
    found = {row.world: row for row in rows}
    known = {"linear_gaussian": (LinearGaussian().whole, f"AUC, one layer, noise {SIGMA:g}")}
    known["discrete"] = (Discrete().whole[::-1], "balanced accuracy")
    return [
        f"{world} ({known[world][1]}): x tells task {known[world][0][0]:.3f}, secret "
        f"{known[world][0][1]:.3f}; "
        f"the task label tells {row.floor:.3f} of the secret; the best release that keeps the task, "
        f"{row.optimum_task:.3f}, leaks {row.optimum_leakage:.3f}"
        for world, row in found.items()
    ]


def _cells(row: Row, none: Row) -> list[str]:
    said = "no claim" if row.defense in NO_CLAIM else "yes" if suppresses(row, none) else "no"
    scores, rest = (row.task, row.leakage), (row.excess, row.distance)
    shown = [[f"{number:.3f}" for number in numbers] for numbers in (scores, rest)]
    return [row.world, row.release, row.defense, *shown[0], row.attacker, *shown[1], said]


if __name__ == "__main__":
    main()
