"""How long the page of a sweep of 1,000 finished points takes: load, frontier, page and files beside it.

The points are made up (tests/made_up/sweep.py) and written before the clock starts.
"""

from __future__ import annotations

import runpy
import tempfile
import time
from pathlib import Path

from privhier.evaluation.frontier import frontier, panels
from privhier.evaluation.points import load_points
from privhier.report.sweep_page import write_sweep_report

MADE_UP = Path(__file__).parents[1] / "tests" / "made_up" / "sweep.py"


def main() -> None:
    make_sweep = runpy.run_path(str(MADE_UP))["make_sweep"]
    for seeds in ([0], [0, 1, 2, 3, 4]):
        with tempfile.TemporaryDirectory() as name:
            count = 1000 // len(seeds) // 20
            sigmas = [round(0.02 * n, 2) for n in range(count)]
            sweep = make_sweep(
                Path(name),
                sigmas=sigmas,
                widths=(8, 32, 64, 256, 1024),
                defenses=("none", "gradient_reversal", "max_entropy", "another"),
                seeds=seeds,
                failed=0,
                pending=0,
            )
            start = time.perf_counter()
            points = load_points(sweep)
            loaded = time.perf_counter()
            fronts = [frontier(points, attribute, bench) for bench, attribute in panels(points)]
            computed = time.perf_counter()
            page = write_sweep_report(sweep)
            whole = time.perf_counter() - computed
            print(
                f"{len(points)} points of {len(fronts[0].candidates)} settings and {len(seeds)} seed(s), "
                f"{len(fronts)} attributes: load {loaded - start:.2f} s, frontier {computed - loaded:.2f} s, "
                f"all of write_sweep_report {whole:.2f} s, page {page.stat().st_size / 1e6:.1f} MB"
            )


if __name__ == "__main__":
    main()
