"""The phases' watch sees the memory of a process and of its children."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

HOLD = "b = b'x' * (40 << 20)"
PARENT = f"import subprocess, sys, time; {HOLD}; subprocess.run([sys.executable, '-c', sys.argv[1]])"
CHILD = f"import time; {HOLD}; time.sleep(0.6)"


@pytest.fixture(scope="module")
def phases(repository):
    return runpy.run_path(str(repository / "experiments" / "celeba_scale" / "phases.py"))


def test_a_phase_is_measured_with_its_children(phases):
    row = phases["measured"]("two", [sys.executable, "-c", PARENT, CHILD], 100, dict(os.environ))
    assert row.seconds >= 0.6
    assert 80 <= row.peak_rss_anon_mb <= 200
    assert row.images_per_second == pytest.approx(100 / row.seconds, rel=0.2)


def test_a_phase_that_fails_ends_the_measurement(phases):
    with pytest.raises(SystemExit, match="bad: exit code 3"):
        phases["measured"]("bad", [sys.executable, "-c", "raise SystemExit(3)"], 1, dict(os.environ))
    assert phases["anonymous"](2**22 + 1) == 0, "a process that is gone holds nothing"


def test_the_configuration_is_one(repository):
    from privhier.config import load_config

    assert load_config(repository / "experiments" / "celeba_scale" / "run.yaml").dataset.name == "celeba"
    assert Path(repository / "experiments" / "celeba_scale" / "README.md").exists()
