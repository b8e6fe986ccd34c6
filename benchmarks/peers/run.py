"""Everything beside its peers: a page and a table under ``benchmarks/results``.

    .peers/bin/python benchmarks/peers/run.py [NAME ...] [--pairs N] [--out FOLDER]

Runs in the environment that ``benchmarks/peers/install.py`` makes. A peer that is not installed is named as
not compared; a pair that did not do the same ends the run. What an earlier run found of others stays.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from harness import MissingError, Row, Strength
from pages import Found, machine, page, strengths_table, table, times_table

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
    for name in arguments.names or NAMES:
        found = compared(name, arguments.pairs)
        arguments.out.mkdir(parents=True, exist_ok=True)
        write(arguments.out, name, found)
    print(f"written: peers.md, peers.csv and peers.json in {arguments.out.name}/")
    return 0


def compared(name: str, pairs: int) -> Found:
    """One comparison, printed row by row."""
    found = Found(machine=machine(THREADS))

    def skip(line: str) -> None:
        print(f"not compared: {line}", flush=True)
        found.skipped.append(line)

    try:
        for row in comparisons(name)(pairs, skip):
            if isinstance(row, Row):
                found.times.append(row)
                print(times_table([row]).splitlines()[-1], flush=True)
            else:
                found.strengths.append(row)
                print(strengths_table([row]).splitlines()[-1], flush=True)
    except ModuleNotFoundError as error:
        skip(f"{name}: {error.name} is not installed (make peers)")
    except MissingError as error:
        skip(f"{name}: {error}")
    return found


def write(out: Path, name: str, found: Found) -> None:
    """Put one comparison in the place of its earlier self, and write page and table anew."""
    store = out / "peers.json"
    stored = json.loads(store.read_text()) if store.exists() else {}
    stored[name] = asdict(found)
    store.write_text(json.dumps(stored, indent=1) + "\n")
    everything = {one: Found.read(stored[one]) for one in NAMES if one in stored}
    (out / "peers.md").write_text(page(everything))
    (out / "peers.csv").write_text(table(everything))


if __name__ == "__main__":
    sys.exit(main())
