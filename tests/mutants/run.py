"""Mutation tests of the mechanisms: break the source in one place, and see the named tests fail.

``python tests/mutants/run.py`` copies the packages to a temporary folder, first runs the tests there
unbroken, then every mutant of the tables (``draws.toml``: what once got through; ``eighteen.toml``: the older
ones; ``releases.toml``: what may go up and who trains it; ``bounds.toml``: upper bounds made too small;
``letters.toml``: letters, from the features to the cloud's door, and their audit; ``defenses.toml``: what a
defense may do beside its loss; ``adversaries.toml``: defenses against adversaries) with the tests that must
kill it. A line for each; exit code 1 if one lives, 2 if a table no longer fits the source.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLES = (
    "draws.toml",
    "eighteen.toml",
    "releases.toml",
    "bounds.toml",
    "letters.toml",
    "defenses.toml",
    "adversaries.toml",
)
PACKAGES = {"privhier": "privhier", "attacks": "privhier/attacks", "datasets": "privhier/datasets"}
"""Folder of the checkout to folder of an installation: attacks and datasets are installed inside."""
LONGEST = 900
"""Seconds after which a run of tests is given up."""


class TableError(Exception):
    """The table no longer fits the source or the tests."""


@dataclass(frozen=True)
class Mutant:
    """One way to break the source.

    Attributes:
        name: In words; unique.
        file: Relative to the checkout.
        old: Text that stands there exactly once.
        new: What takes its place.
        tests: Node ids, relative to the checkout; one of them must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def installed(self) -> str:
        """The file relative to an installation."""
        top, _, rest = self.file.partition("/")
        return f"{PACKAGES[top]}/{rest}"

    @property
    def module(self) -> str:
        """Its name when imported."""
        return self.installed.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read_tables(folder: Path = HERE) -> list[Mutant]:
    """All mutants.

    Raises:
        TableError: Two of one name, or one without tests.
    """
    found = []
    for name in TABLES:
        for entry in tomllib.loads((folder / name).read_text())["mutant"]:
            found.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
    names = [mutant.name for mutant in found]
    problems = sorted({name for name in names if names.count(name) > 1})
    problems += [mutant.name for mutant in found if not mutant.tests or mutant.old == mutant.new]
    if problems:
        raise TableError(f"named twice, without tests, or changing nothing: {', '.join(problems)}")
    return found


def mutated(mutant: Mutant, root: Path) -> str:
    """The mutant's source.

    Raises:
        TableError: Its text does not stand there exactly once, or the result is no Python.
    """
    source = (root / mutant.file).read_text()
    count = source.count(mutant.old)
    if count != 1:
        raise TableError(
            f"{mutant.name}: the old text stands {count} times in {mutant.file}, not once; mend the table"
        )
    result = source.replace(mutant.old, mutant.new)
    try:
        compile(result, mutant.file, "exec")
    except SyntaxError as error:
        raise TableError(f"{mutant.name}: {error} in {mutant.file}; mend the table") from error
    return result


def copy_packages(root: Path, tree: Path) -> None:
    """Lay the packages of a checkout out as an installation has them."""
    for source, target in PACKAGES.items():
        if (root / source).is_dir():
            shutil.copytree(root / source, tree / target, dirs_exist_ok=True)


@dataclass(frozen=True)
class Outcome:
    """What a run of tests came to.

    Attributes:
        failed: Tests that ran and failed.
        problem: Why the run says nothing; empty: it does.
        seconds: Wall clock.
    """

    failed: Sequence[str]
    problem: str
    seconds: float


def run_tests(
    tests: Sequence[str], root: Path, tree: Path, *, module: str = "", first: bool = True
) -> Outcome:
    """Run tests of the checkout against the packages in ``tree``, and nothing else of that name.

    Args:
        tests: Node ids, relative to ``root``.
        root: The checkout.
        tree: An installation.
        module: What must have been imported for the result to say anything.
        first: Whether to stop at the first failure.
    """
    shutil.copy(HERE / "guard.py", tree / "mutants_guard.py")
    (tree / "outcome.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-c", str(root / "pyproject.toml"), f"--rootdir={root}"]
    command += ["-p", "mutants_guard", "-W", "ignore::pytest.PytestAssertRewriteWarning", "--tb=no"]
    command += ["-x"] if first else []
    command += [f"--basetemp={tree / 'temporary'}", *(str(root / test) for test in tests)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),  # before any editable installation; so is the working directory
        "MUTANTS_TREE": str(tree),
        "MUTANTS_MODULE": module,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome([], f"no end after {LONGEST} s", time.monotonic() - started)
    seconds = time.monotonic() - started
    path = tree / "outcome.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    tail = " | ".join(done.stdout.strip().splitlines()[-3:]) or done.stderr.strip()[-300:]
    if done.returncode not in (0, 1) or not found:
        problem = f"pytest ended with {done.returncode}: {tail}"
    elif found["strangers"]:
        problem = f"another copy of the packages was imported: {', '.join(found['strangers'][:3])}"
    elif not found["met"]:
        problem = f"{module} was never imported"
    elif found["broken"]:
        problem = f"a fixture could not be made: {found['broken'][0]}"
    elif not found["failed"] and not found["passed"]:
        problem = f"no test ran: {tail}"
    else:
        problem = ""
    return Outcome(found.get("failed", []), problem, seconds)


def try_mutant(mutant: Mutant, root: Path, base: Path) -> tuple[bool, str]:
    """Run a mutant's tests; returns whether it was killed, and a line about it."""
    source = mutated(mutant, root)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder).resolve()
        shutil.copytree(base, tree, dirs_exist_ok=True)  # with the bytecode of the unbroken run
        path = tree / mutant.installed
        path.write_text(source)
        for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            cached.unlink()
        outcome = run_tests(mutant.tests, root, tree, module=mutant.module)
    start = f"{outcome.seconds:6.1f} s  {mutant.name}"
    if outcome.problem:
        return False, f"UNKNOWN  {start}: {outcome.problem}"
    if not outcome.failed:
        return False, f"SURVIVED {start}: {', '.join(mutant.tests)}"
    return True, f"killed   {start}  by {outcome.failed[0]}"


def campaign(mutants: Sequence[Mutant], root: Path, *, jobs: int = 1) -> int:
    """Run everything, a line a mutant; returns the exit code.

    Raises:
        TableError: A mutant does not fit the source, or a test fails (or is not there) on the source itself.
    """
    for mutant in mutants:
        mutated(mutant, root)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        base = Path(folder).resolve()
        copy_packages(root, base)
        tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        sound = run_tests(tests, root, base, first=False)
        shutil.rmtree(base / "temporary", ignore_errors=True)
        if sound.problem or sound.failed:
            raise TableError(f"unmutated: {sound.problem or ', '.join(sound.failed)}")
        print(f"unmutated {sound.seconds:.1f} s: {len(tests)} tests or groups of tests pass", flush=True)
        killed = 0
        with ThreadPoolExecutor(jobs) as pool:
            for dead, line in pool.map(lambda mutant: try_mutant(mutant, root, base), mutants):
                killed += dead
                print(line, flush=True)
    seconds = time.monotonic() - started
    print(
        f"{len(mutants)} mutants, {killed} killed, {len(mutants) - killed} alive or unknown, {seconds:.0f} s"
    )
    return 0 if killed == len(mutants) else 1


def main() -> int:
    """Read the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="mutants whose name holds this text")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="mutants at a time")
    chosen = parser.parse_args()
    try:
        mutants = [mutant for mutant in read_tables() if chosen.only in mutant.name]
        return campaign(mutants, ROOT, jobs=chosen.jobs)
    except TableError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
