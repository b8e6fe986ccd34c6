"""Fixtures every room may use. No real face is ever written by a test."""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from privhier.config import RunConfig
    from privhier.evaluation.result import Result
    from privhier.evaluation.sheets import ReconstructionSheet

ROOT = Path(__file__).parents[1]
PACKAGES = {"privhier": "privhier", "privhier.attacks": "attacks", "privhier.datasets": "datasets"}
"""Each with its folder in the tree."""
MADE_UP = Path(__file__).parent / "made_up"
"""A made-up result and sweep; the pictures are random noise, no faces."""
BROWSER_FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "disable-dev-shm-usage",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "hide-scrollbars",
    "window-size=1280,900",
)


def _strangers() -> list[str]:
    """The packages that would be imported from another tree than these tests, and from where."""
    mutants, found = os.environ.get("MUTANTS_TREE"), []  # tests/mutants/run.py: a broken copy is wanted
    for name, folder in PACKAGES.items():
        # This loads privhier before any test loads torch: it limits how long OpenMP's threads spin.
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        wanted = Path(mutants, *name.split(".")) if mutants else ROOT / folder
        if [Path(place).resolve() for place in places] != [wanted.resolve()]:
            found.append(f"{name} ({', '.join(places) or 'nowhere'})")
    return found


# Before anything of ours is imported: run from one checkout in another's environment, ``privhier`` is of
# the one, ``privhier.attacks`` of the other, and the results are of neither.
if _strangers():
    raise pytest.UsageError(
        f"not of this tree, {ROOT}: {'; '.join(_strangers())}. Run the tests in this tree's own environment "
        "(`make test`), or install this tree into the one in use: pip install --no-deps --editable ."
    )


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist, too, as in tests/mutants/run.py
def pytest_xdist_auto_num_workers() -> int:
    """Processes of ``make test``: a choice of the user's, or the rule in ``process/count.py``.

    They share the cores: what they start, too, sees how many threads are left to each.
    """
    from privhier.process.cores import usable_cores

    rule = Path(__file__).parent / "process" / "count.py"
    chosen = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    count = int(chosen) if chosen else int(runpy.run_path(str(rule))["here"]())
    if count:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    return count


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def put() -> Callable[[Path, str], None]:
    """Write a file of a run or sweep folder as the tool would: with its digest."""
    from privhier.storage.sealed import Sealed

    return lambda path, text: Sealed(path.parent).write(path, text)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that ends well; returns what it prints."""
    from privhier.cli.main import main

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        said = capsys.readouterr()
        assert ended.value.code in (0, None), said.err
        return said.out

    return run


@pytest.fixture
def own_defenses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The registry of defenses, to register in; as it was after the test."""
    from privhier.defenses.base import defenses

    defenses.names()  # filled first, or what is put back after the test is a registry that never fills
    for name, value in vars(defenses).items():
        if isinstance(value, dict):
            monkeypatch.setattr(defenses, name, dict(value))
    return defenses


@pytest.fixture
def comparing(own_defenses: Any) -> dict[str, Any]:
    """A registered defense whose loss compares records, and what its file defines; gone after the test."""
    return runpy.run_path(str(MADE_UP / "comparing_defense.py"))


@pytest.fixture(scope="session")
def smaller_debug(repository: Path) -> Callable[..., str]:
    """``configs/debug.yaml`` on fewer images, as text; further overrides are keywords."""
    import privhier as ph

    smaller = {
        "dataset.options": {"images": 240, "identities": 60},
        "evaluation.references": [],
        "attacks.reconstruction": [],
        "runtime.threads": 1,
    }
    return lambda **more: ph.load_config(repository / "configs" / "debug.yaml", smaller | more).to_yaml()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real faces; skips with a reason where there are none."""
    root = os.environ.get("PRIVHIER_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("PRIVHIER_DATA is not set to a folder of real faces")
    return Path(root)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database takes seconds to create: once, then copied."""
    from privhier.tracking.sqlite import sqlite_uri
    from privhier.tracking.store import opened

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with opened(sqlite_uri(path)):
        return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with its console log on; skips with a reason where it is not installed."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("Chromium and its driver (apt: chromium, chromium-driver) not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*BROWSER_FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def result() -> Result:
    from privhier.evaluation.result import Result

    return Result.read(MADE_UP / "example_result.json")


@pytest.fixture
def config() -> RunConfig:
    from privhier.config import RunConfig

    return RunConfig.model_validate(
        {
            "name": "made_up_example",
            "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
            "schedule": {"pretrain_epochs": 3, "cloud_epochs": 4},
            "release": {"mechanism": "gaussian", "target_epsilon": 8.0},
        }
    )


@pytest.fixture(scope="session")
def small_config() -> Callable[..., RunConfig]:
    """The builder of small runs; see ``small.py`` (read by path: tests import no tests)."""
    build: Callable[..., RunConfig] = runpy.run_path(str(Path(__file__).with_name("small.py")))[
        "small_config"
    ]
    return build


@pytest.fixture
def history() -> list[dict[str, Any]]:
    edge = [
        {"phase": "pretrain", "epoch": e, "edge_loss": 0.7 / (e + 1), "task_exit_accuracy": 0.6 + 0.1 * e}
        for e in range(3)
    ]
    return edge + [{"phase": "cloud", "epoch": e, "cloud_loss": 0.6 / (e + 1)} for e in range(4)]


@pytest.fixture
def sheet() -> ReconstructionSheet:
    from privhier.evaluation.sheets import ReconstructionSheet

    rng = np.random.default_rng(0)
    rows: list[Any] = []
    for label in ("best", "median", "worst"):
        original = rng.integers(0, 256, (3, 24, 24), dtype=np.uint8)
        rows.append((f"{label}, record 3", original, rng.random((3, 24, 24), dtype=np.float32), None))
    return ReconstructionSheet("decoder", rows)


@pytest.fixture(scope="session")
def make_sweep() -> Any:
    """Writes made-up sweep folders; see ``made_up/sweep.py`` (read by path: tests import no tests)."""
    return runpy.run_path(str(MADE_UP / "sweep.py"))["make_sweep"]
