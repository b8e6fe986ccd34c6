"""The report in a real browser: headless Chromium, from a file, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privhier.config import RunConfig
from privhier.evaluation.result import Result
from privhier.evaluation.sheets import ReconstructionSheet
from privhier.report.page import write_report

SECTIONS = [
    "Utility against leakage",
    "Guarantees and what they do not cover",
    "Leakage, attribute by attribute",
    "Reconstruction of the images",
    "Utility, task by task",
    "Training",
    "Data",
    "What went up",
    "How to read this report",
    "Reproduce",
]
COLUMNS = [
    "statement",
    "adversary",
    "adjacency",
    "unit",
    "epsilon",
    "delta",
    "covers",
    "does not cover",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")
    config = RunConfig.model_validate(
        {
            "name": "made_up_example",
            "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]},
            "schedule": {"pretrain_epochs": 2, "cloud_epochs": 1},
            "release": {"mechanism": "gaussian", "target_epsilon": 8.0},
        }
    )
    rng = np.random.default_rng(0)  # noise, no faces
    rows = [
        (
            label,
            rng.integers(0, 256, (3, 32, 32), dtype=np.uint8),
            rng.random((3, 32, 32), dtype=np.float32),
            rng.random((3, 32, 32), dtype=np.float32),
        )
        for label in ("best", "median", "worst")
    ]
    history = [{"phase": "pretrain", "epoch": e, "edge_loss": 1 / (e + 1), "auc": 0.6} for e in range(3)]
    return write_report(
        tmp_path_factory.mktemp("run"),
        result,
        config,
        history=history,
        reconstructions=[ReconstructionSheet("decoder", rows)],
        command="privhier run configs/quickstart.yaml --out " + "a-very-long-folder-name/" * 12,
    )


@pytest.fixture(scope="module")
def page(browser: Any, report: Path) -> Any:
    browser.get(report.as_uri())
    return browser


def test_opens_without_a_complaint(page: Any) -> None:
    assert page.title.startswith("made_up_example")
    assert page.get_log("browser") == []


def test_has_its_sections_in_order(page: Any) -> None:
    headings = page.execute_script("return [...document.querySelectorAll('h2')].map(h => h.innerText)")
    assert headings == SECTIONS
    broken = page.execute_script(
        "return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))"
        ".filter(h => !document.querySelector(h))"
    )
    assert broken == []


def test_every_image_is_drawn_and_described(page: Any) -> None:
    images = page.execute_script(
        "return [...document.images].map(i => [i.alt, i.complete && i.naturalWidth, i.offsetWidth])"
    )
    # Tradeoff, three attributes, curves, the cost of attacks on two; three rows of three pictures.
    assert len(images) == 5 + 2 + 9
    assert all(alt and natural > 0 and shown > 0 for alt, natural, shown in images)


def test_the_guarantee_table_has_its_columns_and_the_limits_stand_above_it(page: Any) -> None:
    columns = page.execute_script(
        "return [...document.querySelectorAll('#guarantee-table thead th')].map(c => c.innerText)"
    )
    assert columns == COLUMNS
    top = "return document.getElementById('{}').getBoundingClientRect().top"
    assert page.execute_script(top.format("not-covered")) < page.execute_script(top.format("guarantee-table"))


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_window_size(width, 900)
    inner, scroll = page.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    assert scroll <= inner <= width
    if width == 1280:  # on a laptop no table needs a scroll bar of its own either
        assert page.execute_script(
            "return [...document.querySelectorAll('.scroll')].every(s => s.scrollWidth <= s.clientWidth)"
        )


def test_colors_of_the_figures_are_told_apart_by_the_color_blind(report: Path) -> None:
    okabe_ito = {"#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#009e73"}
    drawn = (report.parent / "figures" / "tradeoff.svg").read_text().lower()
    assert all(color in drawn for color in okabe_ito)
