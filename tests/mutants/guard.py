"""A pytest plugin of ``run.py``: which tests failed, and whether the mutated package is what they met."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

TREE = Path(os.environ["MUTANTS_TREE"])
MODULE = os.environ["MUTANTS_MODULE"]
"""The module that must have been imported; empty: any."""

_failed: list[str] = []
_broken: list[str] = []
_passed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tests that ran and failed are told from fixtures that could not be made."""
    if report.when == "call" and not report.skipped:
        (_failed if report.failed else _passed).append(report.nodeid)
    elif report.failed:
        _broken.append(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write what happened beside the tree, for the process that started this one."""
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "privhier"}
    files = {name: getattr(module, "__file__", None) for name, module in ours.items()}
    strangers = sorted(name for name, file in files.items() if file and TREE not in Path(file).parents)
    outcome = {
        "failed": _failed,
        "broken": _broken,
        "passed": _passed,
        "strangers": strangers,
        "met": not MODULE or MODULE in files,
    }
    (TREE / "outcome.json").write_text(json.dumps(outcome))
