"""MLflow's page in a real browser: the saved view in the defenses' colors, and pictures in notes."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from privhier.config import RunConfig
from privhier.evaluation.result import Result
from privhier.tracking.naming import defense_color
from privhier.tracking.tracker import open_tracker
from privhier.tracking.view import view_path

free_port = runpy.run_path(str(Path(__file__).parents[1] / "process" / "ports.py"))["free_port"]
DEFENSES = ("none", "max_entropy", "gradient_reversal")


def log(folder: Path, defense: str, utility: float) -> str:
    """A run with a made-up result; its id in MLflow."""
    config = RunConfig.model_validate(
        {
            "name": "seen",
            "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
            "schedule": {"joint_epochs": 1},
            "defense": {"name": defense},
        }
    )
    result = Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")
    assert result.utility_mean.auc is not None
    score = result.utility_mean.auc.model_copy(update={"value": utility})
    mean = result.utility_mean.model_copy(update={"auc": score})
    run = folder / defense
    (run / "figures").mkdir(parents=True)
    (run / "figures" / "tradeoff.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"><rect width="64" height="48"/></svg>'
    )
    tracker = open_tracker(config, run)
    tracker.log_result(result.model_copy(update={"utility_mean": mean}))
    tracker.log_artifacts(run)
    tracker.finish()
    assert tracker.failure is None
    return str(json.loads((run / "tracking.json").read_text())["run_id"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[tuple[str, list[str]]]:
    """The page's address, and the runs on it; the folder was moved after they were logged."""
    before = tmp_path_factory.mktemp("before") / "runs"
    before.mkdir()
    shutil.copy(empty_store, before / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ids = [log(before, name, 0.7 + 0.1 * number) for number, name in enumerate(DEFENSES)]
        store = before.rename(tmp_path_factory.mktemp("after") / "runs")
        port = free_port()
        command = [sys.executable, "-P", "-m", "privhier.cli.main", "ui", "--store", str(store)]
        with subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server:
            try:
                wait_for(lambda: answers(port))
                yield f"http://127.0.0.1:{port}/", ids
            finally:
                server.terminate()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_for(true: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.slow
def test_the_saved_view_draws_every_run_in_its_defenses_color(
    browser: Any, page: tuple[str, list[str]]
) -> None:
    browser.get(page[0] + view_path("1"))
    script = """return [...document.querySelectorAll('.js-plotly-plot')]
        .map(plot => plot.data[0]).filter(trace => trace.type == 'scatter')
        .map(trace => trace.x.map((x, number) => [x, trace.marker.color[number]]))"""
    charts = wait_for(lambda: [chart for chart in browser.execute_script(script) if len(chart) == 3])
    drawn = [(round(x, 6), color) for x, color in sorted(charts[0])]
    assert drawn == [
        (round(0.7 + 0.1 * number, 6), defense_color(name)) for number, name in enumerate(DEFENSES)
    ]
    trigger = browser.find_element("css selector", "[data-testid=saved-views-trigger]")
    assert trigger.text == "Utility against leakage"


@pytest.mark.slow
def test_a_runs_note_shows_its_picture(browser: Any, page: tuple[str, list[str]]) -> None:
    browser.get(f"{page[0]}#/experiments/1/runs/{page[1][0]}")
    script = """return [...document.images].filter(i => i.src.includes('get-artifact'))
        .map(i => i.naturalWidth).filter(width => width)"""
    assert wait_for(lambda: browser.execute_script(script)) == [64]
    said = browser.find_element("css selector", "body").text
    assert "seen (none): no defense, no noise, seed=0" in said
