"""How OpenMP's threads wait: set before torch in every process that begins here; a user's choice is kept."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest

from privhier.process.openmp import CHOICES, SPINS, VARIABLE, limit_spinning

OURS = str(SPINS)
PROBE = """
import os, sys

class Probe:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "sklearn"):
            with open(os.environ["PROBE_LOG"], "a") as log:
                log.write(os.environ.get("GOMP_SPINCOUNT", "unset") + "\\n")
            os._exit(0)

sys.meta_path.insert(0, Probe())
"""
"""Notes what libgomp would read when torch, or scikit-learn, is about to be loaded, and ends the process."""


@pytest.fixture
def probe(tmp_path, monkeypatch) -> Path:
    """Every process started from here ends where it first loads OpenMP; its setting is a line of this."""
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "sitecustomize.py").write_text(PROBE)
    log = tmp_path / "probe" / "log"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "probe"))
    monkeypatch.setenv("PROBE_LOG", str(log))
    for name in CHOICES:  # what this process has set is not what is tested
        monkeypatch.delenv(name, raising=False)
    return log


def start(*command: object) -> None:
    subprocess.run([sys.executable, "-P", *map(str, command)], check=False, capture_output=True, timeout=240)


def test_the_setting_is_a_valid_one_and_is_here():
    assert int(os.environ.get(VARIABLE, SPINS)) >= 0
    assert any(name in os.environ for name in CHOICES), "conftest imports privhier before any test does torch"


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["PASSIVE", "0", ""])
def test_a_choice_of_the_users_is_kept(name, value):
    environment = {name: value, "OMP_NUM_THREADS": "2"}
    limit_spinning(environment)
    assert environment == {name: value, "OMP_NUM_THREADS": "2"}


def test_without_a_choice_it_is_set():
    environment = {"OMP_NUM_THREADS": "2"}
    limit_spinning(environment)
    assert environment == {"OMP_NUM_THREADS": "2", VARIABLE: OURS}


@pytest.mark.parametrize(
    "verb",
    [
        ["run", "configs/debug.yaml", "--out", "OUT"],
        ["audit", "OUT"],
        ["plan", "configs/debug.yaml", "--bitrate", "5Mbit"],
        ["edge", "configs/debug.yaml", "--plain", "--out", "OUT"],
        ["cloud", "configs/debug.yaml", "--plain", "--out", "OUT"],
        ["sweep", "configs/sweeps/debug.yaml", "--out", "OUT"],
        ["data", "check", "configs/debug.yaml"],
        ["list", "attacks"],
    ],
    ids=lambda verb: verb[0],
)
def test_every_verb_sees_it(probe, repository, tmp_path, verb):
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in verb]
    arguments = [str(repository / word) if word.startswith("configs") else word for word in arguments]
    start("-m", "privhier.cli.main", *arguments)
    assert set(probe.read_text().split()) == {OURS}


def test_the_installed_command_sees_it(probe):
    command = Path(sys.executable).with_name("privhier")
    subprocess.run([command, "list", "attacks"], check=False, capture_output=True, timeout=240)
    assert probe.read_text().split() == [OURS]


@pytest.mark.parametrize("module", ["privhier.sweeps.worker", "privhier.planner.timing_process"])
def test_workers_of_sweeps_and_timers_see_it(probe, module):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        theirs.close()
    assert process.wait(timeout=240) == 0
    assert probe.read_text().split() == [OURS]


def test_shadow_models_processes_see_it(probe):
    """They are spawned, and begin by looking up a function of ``privhier.attacks.membership.shadows``."""
    from privhier.attacks.membership.shadows import _begin

    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin) as pool,
        pytest.raises(BrokenProcessPool),
    ):
        pool.submit(os.getpid).result(timeout=240)
    assert probe.read_text().split() == [OURS]


@pytest.mark.parametrize(
    "module",
    ["privhier", "privhier.sweeps.ray_engine", "privhier.distributed.remote", "privhier.session.stages"],
)
def test_whatever_part_is_imported_first_sets_it(probe, module):
    """A worker of Ray's begins by importing ``privhier.sweeps.ray_engine``."""
    start("-c", f"import {module}, torch")
    assert probe.read_text().split() == [OURS]


def test_pytest_sees_it(probe, repository):
    first_torch = repository / "tests" / "tracking" / "test_tracker.py"  # which imports it before ours
    start("-m", "pytest", "--collect-only", first_torch)
    assert probe.read_text().split() == [OURS]


def test_benchmarks_and_other_scripts_import_privhier_before_torch(repository):
    late = []
    for folder in ("benchmarks", "docs", "experiments", "tests"):
        for path in sorted((repository / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            script = folder != "tests" or "__main__" in path.read_text()
            names = [name.split(".")[0] for node in tree.body for name in imported(node)]
            heavy = [names.index(name) for name in ("torch", "torchvision", "sklearn") if name in names]
            if script and heavy and ("privhier" not in names or names.index("privhier") > min(heavy)):
                late.append(str(path.relative_to(repository)))
    assert late == []


def imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


@pytest.mark.skipif(sys.platform != "linux", reason="torch's OpenMP is libgomp on Linux")
@pytest.mark.parametrize(
    ("chosen", "spins"),
    [({}, OURS), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"), ({VARIABLE: "77"}, "77")],
    ids=["nothing", "policy", "count"],
)
def test_libgomp_itself_takes_it(chosen, spins):
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **chosen}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import privhier, torch"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    shown = {line.split("=")[1].strip(" '") for line in done.stderr.splitlines() if VARIABLE in line}
    assert shown == {spins}
