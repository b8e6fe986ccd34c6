"""A run at CelebA's number of faces, phase by phase: seconds, and the most anonymous memory held at once.

    python experiments/celeba_protocol/drawn.py data/celeba --images 202599
    python experiments/celeba_scale/phases.py data --out runs/celeba_scale --table phases.csv

Each phase is the command line's own verb in a process of its own; what counts is RssAnon of it and of all its
children together, as pages of a memory map can be dropped. What is there already (a cache, a trained run) is
not made again: give a new ``--out`` for a whole measurement.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

CONFIG = Path(__file__).with_name("run.yaml")
MOST = 3 * 2**30
"""Bytes of anonymous memory that a phase may hold."""
_EVERY = 0.05
_ANONYMOUS = re.compile(r"RssAnon:\s+(\d+) kB")


@dataclass(frozen=True)
class Phase:
    """One phase as measured."""

    phase: str
    images: int
    seconds: float
    images_per_second: float
    peak_rss_anon_mb: float


class Watch(threading.Thread):
    """The most anonymous memory that a process and its descendants held at once; looks 20 times a second."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._done = threading.Event()
        self.peak = 0
        """Bytes."""

    def run(self) -> None:
        """Look until told that the process has ended."""
        while not self._done.wait(_EVERY):
            self.peak = max(self.peak, sum(map(anonymous, family(self._process))))

    def end(self) -> None:
        """Stop looking."""
        self._done.set()
        self.join()


def family(process: int) -> list[int]:
    """The process and all its descendants."""
    found = [process]
    for parent in found:
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in listed.read_text().split()]
            except OSError:  # it has ended meanwhile
                continue
    return found


def anonymous(process: int) -> int:
    """Bytes of anonymous memory that a process holds; 0 where it is gone."""
    try:
        held = _ANONYMOUS.search(Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return 0 if held is None else 1024 * int(held[1])


def measured(name: str, command: list[str], images: int, environment: dict[str, str]) -> Phase:
    """One phase: run to its end; its failure ends the measurement."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    watch = Watch(process.pid)
    watch.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    watch.end()
    if code:
        raise SystemExit(f"{name}: exit code {code}")
    return Phase(name, images, round(seconds, 1), round(images / seconds, 1), round(watch.peak / 2**20, 1))


def main() -> None:
    """Measure every phase, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds celeba/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_args()
    images = sum(1 for _ in (asked.data / "celeba" / "img_align_celeba").iterdir())
    environment = os.environ | {"PRIVHIER_DATA": str(asked.data), "PRIVHIER_CACHE": str(asked.out / "cache")}
    run = str(asked.out / "run")
    keys = [str(asked.config), *asked.overrides]
    verbs = {
        "cache": ["data", "cache", *keys],
        "check (from the cache)": ["data", "check", *keys],
        "train": ["train", *keys, "--out", run],
        "attack": ["attack", run],
        "report": ["report", run],
    }
    rows: list[Phase] = []
    for name, arguments in verbs.items():
        command = [sys.executable, "-P", "-m", "privhier.cli.start", *arguments]
        rows.append(measured(name, command, images, environment))
        print(*astuple(rows[-1]), flush=True)
        with asked.table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Phase)])
            writer.writerows(astuple(row) for row in rows)
    worst = max(row.peak_rss_anon_mb for row in rows)
    print(f"{images} images, {sum(row.seconds for row in rows):.0f} s; most anonymous memory: {worst:.0f} MB")
    if worst * 2**20 > MOST:
        raise SystemExit(f"more than {MOST / 2**30:.0f} GB")


if __name__ == "__main__":
    main()
