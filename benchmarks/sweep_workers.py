"""Two local workers against one on the same sweep, one thread a point: a ratio measured in one run.

Both start from nothing and pay for what they share and for their workers' imports. Twelve points of the
debug configuration, larger and untracked, so that the work is the points' and not the store's.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import yaml

from privhier.sweeps.job import run_sweep

CONFIG = Path(__file__).parents[1] / "configs" / "debug.yaml"
LIMIT = 0.65
SPEC = {
    "name": "workers",
    "base": str(CONFIG),
    "overrides": {
        "runtime.threads": 1,
        "tracking.enabled": False,
        "dataset.options.images": 2400,
        "dataset.options.identities": 600,
        "schedule.pretrain_epochs": 2,
        "attacks.auxiliary": 400,
        "attacks.victims": 400,
        "attacks.attribute": ["logistic_regression", "mlp"],
        "attacks.reconstruction": [],
    },
    "axes": [
        {"key": "release.sigma", "values": [0.1, 0.3, 0.6]},
        {"key": "release.clip", "values": [1.0, 2.0]},
    ],
    "seeds": [0, 1],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        spec = Path(scratch) / "sweep.yaml"
        spec.write_text(yaml.safe_dump(SPEC))
        seconds = {}
        for workers in (1, 2):
            started = time.perf_counter()
            summary = run_sweep(spec, workers=workers, out=Path(scratch) / str(workers))
            seconds[workers] = time.perf_counter() - started
            if summary.exit_code:
                raise SystemExit("\n".join(summary.lines()))
    print(f"sweep of {summary.total} points, one thread a point:")
    print(f"  one worker {seconds[1]:.1f} s, two workers {seconds[2]:.1f} s")
    print(f"  two / one: {seconds[2] / seconds[1]:.3f}")
    print(f"  wanted: at most {LIMIT:.2f}")


if __name__ == "__main__":
    main()
