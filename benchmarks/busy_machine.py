"""What limiting OpenMP's spinning costs a quiet machine and saves on a busy one: two ratios in one run.

    python benchmarks/busy_machine.py [--repeats N] [--spins N ...]

Small networks on two threads, where waiting is dear: steps of an MLP and of a small convolutional network,
each measurement in a process of its own, since libgomp reads its variables once. Everything is pinned to two
cores; "busy" is beside two endless loops on the same cores, where a fair share alone makes 2.0. The ways to
wait take turns, so that what else the machine does meets all of them. ``--spins`` adds other settings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from privhier.process.openmp import CHOICES, SPINS, VARIABLE

CORES, REPEATS = 2, 7
QUIET_LIMIT, BUSY_LIMIT = 1.03, 3.0
STEPS = {"MLP": 150, "conv net": 50}
LOOP = [sys.executable, "-c", "while True: pass"]
Seconds = dict[str, list[float]]


def work() -> dict[str, float]:
    """Seconds of each workload's steps; runs in a child."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    networks = {
        "MLP": (
            nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 2)),
            torch.randn(128, 512),
        ),
        "conv net": (
            nn.Sequential(
                *(nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU()),
                *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 2)),
            ),
            torch.randn(64, 3, 32, 32),
        ),
    }
    labels = torch.randint(0, 2, (128,))
    seconds = {}
    for name, (network, x) in networks.items():
        optimizer = torch.optim.AdamW(network.parameters())
        for step in range(STEPS[name] + 5):
            if step == 5:  # the first steps warm up
                started = time.perf_counter()
            optimizer.zero_grad()
            functional.cross_entropy(network(x), labels[: len(x)]).backward()
            optimizer.step()
        seconds[name] = time.perf_counter() - started
    return seconds


def measure(spins: int | None, into: Seconds) -> None:
    """One child's seconds; ``spins`` None: OpenMP's default."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    if spins is not None:
        environment[VARIABLE] = str(spins)
    command = [sys.executable, __file__, "--work"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    for name, seconds in json.loads(done.stdout).items():
        into.setdefault(name, []).append(seconds)


@contextmanager
def busy_loops() -> Iterator[None]:
    """Two endless loops beside what is measured."""
    loops = [subprocess.Popen(LOOP) for _ in range(CORES)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--spins", type=int, nargs="*", default=[], help="other values to compare")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    if options.work:
        print(json.dumps(work()))
        return
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    if len(cores) < CORES:
        raise SystemExit(f"this takes {CORES} cores")
    os.sched_setaffinity(0, cores)  # children inherit it
    ways: list[int | None] = [None, *dict.fromkeys([SPINS, *options.spins])]
    quiet: dict[int | None, Seconds] = {way: {} for way in ways}
    busy: dict[int | None, Seconds] = {way: {} for way in ways}
    measure(None, {})  # fills the file cache
    for repeat in range(options.repeats):
        order = ways if repeat % 2 == 0 else ways[::-1]
        for way in order:
            measure(way, quiet[way])
        with busy_loops():
            for way in order:
                measure(way, busy[way])
    print(f"two threads on two cores, medians of {options.repeats} processes in turns, seconds:")
    for name in STEPS:
        print(f"  {STEPS[name]} steps of the {name}:")
        usual = statistics.median(quiet[None][name])
        for way in ways:
            calm, loaded = statistics.median(quiet[way][name]), statistics.median(busy[way][name])
            title = "default" if way is None else f"{VARIABLE}={way}" + " (ours)" * (way == SPINS)
            print(
                f"    {title:<28} quiet {calm:6.3f}  busy {loaded:6.3f}"
                f"   quiet / default's quiet {calm / usual:.3f}   busy / own quiet {loaded / calm:.2f}"
            )
    print(f"  wanted of ours: quiet at most {QUIET_LIMIT:.2f}, busy at most {BUSY_LIMIT:.2f}")


if __name__ == "__main__":
    main()
