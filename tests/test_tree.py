"""The tests refuse to run on another tree's packages, in whole or in part."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run_tests(tree: Path) -> tuple[int, str]:
    """Run a tree's tests in our environment, as `python -m pytest` from its root does."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests"],
        cwd=tree,
        env={key: os.environ[key] for key in os.environ if key not in ("PYTHONSAFEPATH", "MUTANTS_TREE")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def other(repository: Path, tmp_path: Path) -> Path:
    """A checkout with our conftest and one test that passes."""
    (tmp_path / "tests").mkdir()
    shutil.copy(repository / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_it.py").write_text("def test_it():\n    pass\n")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "-p no:cacheprovider"\n')
    return tmp_path


def test_anothers_packages_are_refused(repository: Path, other: Path) -> None:
    code, said = run_tests(other)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert f"not of this tree, {other}: privhier ({repository / 'privhier'})" in said
    assert f"privhier.datasets ({repository / 'datasets'})" in said
    assert "make test" in said


def test_a_mixture_is_refused(repository: Path, other: Path) -> None:
    """What the checkout's own folder ``privhier/`` hides: attacks and data sets are the other tree's."""
    for folder in ("privhier", "attacks", "datasets"):
        (other / folder).mkdir()
        (other / folder / "__init__.py").touch()
    code, said = run_tests(other)
    assert code == pytest.ExitCode.USAGE_ERROR
    wrong = f"privhier.attacks ({repository / 'attacks'}); privhier.datasets ({repository / 'datasets'})"
    assert f"not of this tree, {other}: {wrong}." in said


def test_ones_own_packages_are_not(other: Path) -> None:
    for folder in ("privhier", "privhier/attacks", "privhier/datasets"):
        (other / folder).mkdir()
        (other / folder / "__init__.py").touch()
    for folder in ("attacks", "datasets"):
        (other / folder).symlink_to(other / "privhier" / folder)
    assert run_tests(other)[0] == 0
