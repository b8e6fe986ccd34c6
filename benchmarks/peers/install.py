"""Make the environment that the comparisons run in: ``.peers/`` beside ``.venv``, which it does not touch.

    python3.11 benchmarks/peers/install.py

privhier and what it needs are installed as anywhere, pinned by the repository's ``constraints.txt``. The
peers come without what they declare: half of it (transformers, tensorflow, xgboost, ...) is for parts that
are not compared, and PrivacyGuard caps pandas below what privhier is tested with. What they do import is
named here; ``constraints.txt`` beside this file pins all of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = (
    "adversarial-robustness-toolbox",
    "auditml",
    "breaching",
    "jax-privacy",
    "Privacy-Meter",
    "privacyguard-platform",
    "sacroml",
)
"""Packages that are held against ours."""
NEEDED = (
    "chex",
    "dictdiffer",
    "fpdf",
    "hydra-core",
    "jax",
    "jaxlib",
    "lpips",
    "multiprocess",
    "optax",
    "pypdf",
    "seaborn",
    "six",
    "tqdm",
)
"""What those import beside what privhier has."""


def commands(python: Path) -> list[list[str]]:
    """What is run, in order."""
    ours, theirs = (
        ("--constraint", str(ROOT / "constraints.txt")),
        ("--constraint", str(HERE / "constraints.txt")),
    )
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    return [
        [*pip, *ours, "--editable", str(ROOT)],
        # Hydra holds OmegaConf below 2.4; the repository's pins do not.
        [*pip, *theirs, *NEEDED],
        [*pip, *theirs, "--no-deps", *PEERS],
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / ".peers", help="the environment's folder")
    into: Path = parser.parse_args().into
    python = into / "bin" / "python"
    if not python.exists():
        venv.create(into, with_pip=True)
    for command in commands(python):
        done = subprocess.run(command, check=False)
        if done.returncode:
            print(f"failed: {' '.join(command[1:])}", file=sys.stderr)
            return done.returncode
    print(f"ready: {into.name}/bin/python benchmarks/peers/run.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
