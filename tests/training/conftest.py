"""The helpers of ``link.py`` as a fixture: tests are imported by file and see no sibling."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def link() -> ModuleType:
    """Both halves of a run over loopback (see ``link.py``)."""
    spec = importlib.util.spec_from_file_location("privhier_tests_link", Path(__file__).parent / "link.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
