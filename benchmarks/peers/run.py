"""Everything beside its peers, in one run: a page and a table under ``benchmarks/results``.

    .peers/bin/python benchmarks/peers/run.py [NAME ...] [--pairs N] [--out FOLDER]

Runs in the environment that ``benchmarks/peers/install.py`` makes. A peer that is not installed is named as
not compared; a pair that did not do the same ends the run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import MissingError, Row, Strength
from pages import page, strengths_table, table, times_table

NAMES = ("inversion", "decoder", "shadows", "dp_sgd", "lira", "membership", "attribute")
RESULTS = Path(__file__).resolve().parents[1] / "results"
THREADS = 1


def comparisons(name: str) -> Callable[[int, Callable[[str], None]], Iterator[Row | Strength]]:
    """``rows(pairs, skip)`` of one comparison."""
    rows: Callable[[int, Callable[[str], None]], Iterator[Row | Strength]]
    rows = importlib.import_module(name).rows
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of every ratio")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where peers.md and peers.csv go")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"no comparison {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if arguments.pairs < 1:
        parser.error("takes at least one pair")
    torch.set_num_threads(THREADS)
    for text in (
        "Full backward hook",
        "Secure RNG",
        "The version_base",
        "Implicit dimension choice",
        "The `probability`",
    ):
        warnings.filterwarnings("ignore", message=f"\\s*{text}")
    times: list[Row] = []
    strengths: list[Strength] = []
    skipped: list[str] = []

    def skip(line: str) -> None:
        print(f"not compared: {line}", flush=True)
        skipped.append(line)

    for name in arguments.names or NAMES:
        try:
            for row in comparisons(name)(arguments.pairs, skip):
                if isinstance(row, Row):
                    times.append(row)
                    print(times_table([row]).splitlines()[-1], flush=True)
                else:
                    strengths.append(row)
                    print(strengths_table([row]).splitlines()[-1], flush=True)
        except ModuleNotFoundError as error:
            skip(f"{name}: {error.name} is not installed (make peers)")
        except MissingError as error:
            skip(f"{name}: {error}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "peers.md").write_text(page(times, strengths, skipped, THREADS))
    (arguments.out / "peers.csv").write_text(table(times, strengths))
    print(f"written: peers.md and peers.csv in {arguments.out.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
