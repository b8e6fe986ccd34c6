"""In how many processes the suite runs: a rule about cores and memory, and what becomes of it."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from privhier.process.cores import usable_cores

RULE = runpy.run_path(str(Path(__file__).with_name("count.py")))
GIB = RULE["GIB"]
WHERE = """
import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(2))
def test_it(number):
    where = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("OMP_NUM_THREADS")
    Path(f"{Path(__file__).stem}_{number}.ran").write_text(f"{where[0]} {where[1]}")
"""


@pytest.mark.parametrize(
    ("cores", "gib", "count"),
    [(2, 6, 2), (2, 64, 2), (16, 64, 2), (1, 64, 0), (2, 5, 0), (64, 1, 0)],
    ids=["just enough", "plenty", "many cores", "one core", "short of memory", "no memory"],
)
def test_one_a_core_as_far_as_memory_reaches(cores, gib, count):
    assert RULE["processes"](cores, gib * GIB) == count


@pytest.mark.parametrize("names", RULE["CGROUPS"], ids=["2", "1"])
@pytest.mark.parametrize("folder", ["", "memory"])
def test_a_containers_limit_counts(tmp_path, names, folder):
    machine = RULE["free_memory"](tmp_path / "none")
    assert machine > 0
    (tmp_path / folder).mkdir(exist_ok=True)
    limit, used = (tmp_path / folder / name for name in names[:2])
    limit.write_text("300\n")
    used.write_text("100\n")
    (tmp_path / folder / "memory.stat").write_text(f"anon 60\nfile 40\n{names[2]} 30\n")
    assert RULE["free_memory"](tmp_path) == 230
    limit.write_text("max\n")
    assert RULE["free_memory"](tmp_path) > GIB // 8


@pytest.fixture
def tree(repository: Path, tmp_path: Path) -> Path:
    """A checkout of our conftest, our packages, and two files of tests that say where they ran."""
    for name in ("privhier", "attacks", "datasets", "pyproject.toml"):
        (tmp_path / name).symlink_to(repository / name)
    (tmp_path / "tests" / "process").mkdir(parents=True)
    for name in ("conftest.py", "process/count.py"):
        shutil.copy(repository / "tests" / name, tmp_path / "tests" / name)
    for name in ("a", "b"):
        (tmp_path / "tests" / f"test_{name}.py").write_text(WHERE)
    return tmp_path


def ran(tree: Path, *options: str, **environment: str) -> list[str]:
    """Worker and OpenMP's threads of every test, as they say themselves."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests"],
        cwd=tree,
        env=known | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 passed in ", done.stdout, re.M), "CI reads the closing line"
    return [path.read_text() for path in sorted(tree.glob("*.ran"))]


def options_of(repository: Path) -> list[str]:
    """Those that ``make test`` gives to pytest."""
    done = subprocess.run(
        ["make", "--dry-run", "test"], cwd=repository, check=True, capture_output=True, text=True
    )
    (line,) = (line for line in done.stdout.splitlines() if "-m pytest" in line)
    return shlex.split(line.partition("-m pytest")[2])


def test_two_processes_share_the_files_and_the_cores(repository, tree):
    threads = str(max(1, usable_cores() // 2))
    found = ran(tree, *options_of(repository), PYTEST_XDIST_AUTO_NUM_WORKERS="2")
    assert found[0] == found[1], "a file's tests stay together: they share what it trains"
    assert found[2] == found[3]
    assert {found[0], found[2]} == {f"gw0 {threads}", f"gw1 {threads}"}


def test_one_process_is_the_one_that_was_asked_and_keeps_its_threads(repository, tree):
    assert ran(tree, *options_of(repository), PYTEST_XDIST_AUTO_NUM_WORKERS="0") == ["None None"] * 4


def test_a_users_threads_are_kept(repository, tree):
    found = ran(tree, *options_of(repository), PYTEST_XDIST_AUTO_NUM_WORKERS="2", OMP_NUM_THREADS="3")
    assert set(found) == {"gw0 3", "gw1 3"}


def test_this_machine_is_asked_where_nobody_says(monkeypatch):
    hook = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["pytest_xdist_auto_num_workers"]
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=GIB))
    assert hook() == 0
