"""Fixtures every room may use. No real face is ever written by a test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real faces; skips with a reason where there are none."""
    root = os.environ.get("PRIVHIER_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("PRIVHIER_DATA is not set to a folder of real faces")
    return Path(root)
