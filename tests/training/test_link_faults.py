"""A few of the runs of ``make faults``: kill -9 of either side, and a line that is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kills_and_cuts_change_nothing():
    script = Path(__file__).parent / "faults.py"
    command = [sys.executable, str(script), "--kills", "3", "--cuts", "2", "--seed", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "kills: 3 runs, 0 failures" in done.stdout
    assert "cuts: 2 runs, 0 failures" in done.stdout
