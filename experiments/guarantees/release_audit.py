"""The release audit's table: claimed epsilon, 95 % lower bound and their ratio, at 10^6 draws.

Releases go through a run's own training path (joint epochs, seeded noise). From the repository's root:

    OMP_NUM_THREADS=1 .venv/bin/python experiments/guarantees/release_audit.py
"""

from __future__ import annotations

import argparse
import sys
import time

from privhier.audit.paths import AuditedReleases
from privhier.audit.release import Claimed, audit_release
from privhier.audit.row import AuditRow
from privhier.audit.trials import Kind
from privhier.config import parse_config
from privhier.privacy.accounting import solve_sigma
from privhier.privacy.release import ReleaseMechanism
from privhier.privacy.shown import claim, lower_bound

DELTA = 1e-5
CELLS: list[tuple[Kind, int]] = [("gaussian", 1), ("gaussian", 10), ("laplace", 1)]
EPSILONS = (1.0, 2.0, 4.0, 8.0)


def cell(kind: Kind, releases: int, epsilon: float, draws: int, values: int = 8) -> list[AuditRow]:
    """All rows of one audit of ``releases`` releases of ``values`` values at a target epsilon."""
    config = parse_config(
        {
            "name": "release-audit",
            "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
            "schedule": {"joint_epochs": releases},
            "release": {"mechanism": kind, "clip": 1.0, "target_epsilon": epsilon},
            "privacy": {"delta": DELTA},
        }
    )
    mechanism = ReleaseMechanism(kind, 1.0, solve_sigma(kind, epsilon, DELTA, 1.0, releases))
    return audit_release(
        AuditedReleases(config, mechanism).training,
        Claimed(kind, 1.0, epsilon, DELTA, releases),
        shape=(values,),
        draws=draws,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000_000)
    draws = parser.parse_args().draws
    lines = ["| mechanism | releases | claimed | at least (95 %) | ratio | alarm level | refuted | seconds |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for kind, releases in CELLS:
        for epsilon in EPSILONS:
            start = time.perf_counter()
            rows = cell(kind, releases, epsilon, draws)
            low, alarm = rows[0].lower_95 or 0.0, rows[0].lower_alarm or 0.0
            refuted = "yes" if any(row.refuted for row in rows) else "no"
            bounds = " | ".join(lower_bound(v, decimals=3) for v in (low, low / epsilon, alarm))
            numbers = f"{claim(epsilon)} | {bounds} | {refuted}"
            lines.append(f"| {kind} | {releases} | {numbers} | {time.perf_counter() - start:.0f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
