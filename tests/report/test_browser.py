"""The report in a real browser: headless Chromium, from a file, offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
        reconstructions=[ReconstructionSheet("decoder", rows, [(0.8, 0.9, 0.4)] * 3, rows[0][2] / 2, 3)],
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
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    images = page.execute_script(
        "return [...document.images].map(i => [i.alt, i.complete && i.naturalWidth, i.offsetWidth])"
    )
    # Tradeoff and leakage of three attributes, curves of a loss and of scores, the cost of attacks on two;
    # three rows of four pictures.
    assert len(images) == 3 + 3 + 2 + 2 + 12
    assert all(alt and natural > 0 and shown > 0 for alt, natural, shown in images)
    page.execute_script("document.querySelectorAll('details').forEach(d => { d.open = false })")


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


@pytest.fixture
def phone(page: Any) -> Iterator[Any]:
    """The page on a screen of 390 pixels."""
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    yield page
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_on_a_phone_nothing_is_cut_and_the_epsilon_is_on_the_screen(phone: Any) -> None:
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
    phone.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
    boxes = phone.execute_script(
        "return [...document.querySelectorAll('#guarantee-table .eps')].map(e => {"
        "const b = e.getBoundingClientRect(); return [b.left, b.right, b.width] })"
    )
    assert len(boxes) >= 3
    assert all(0 <= left < right <= 390 and width > 0 for left, right, width in boxes)
    drawn = phone.execute_script(
        "return [...document.querySelectorAll('img.drawn')].map(i => i.offsetWidth / i.naturalWidth)"
    )
    assert drawn  # text of 9 points, 12 pixels, is still above 9 of them
    assert all(scale > 0.75 for scale in drawn)


def test_the_page_follows_a_dark_screen_and_is_printed_light_and_unfolded(phone: Any) -> None:
    def colors() -> list[int]:
        found = phone.execute_script(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        )
        return [sum(int(part) for part in re.findall(r"\d+", color)[:3]) for color in found]

    def shown() -> bool:
        visible: bool = phone.execute_script(
            "return document.querySelector('#reproduce ~ details pre').checkVisibility("
            "{contentVisibilityAuto: true})"
        )
        return visible

    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    phone.execute_script("document.querySelectorAll('details').forEach(d => { d.open = false })")
    phone.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": dark})
    ink, paper = colors()
    assert ink > 500 > 200 > paper
    assert not shown()
    phone.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    ink, paper = colors()
    assert paper > 700
    assert ink < 200
    assert shown()


def test_the_first_fold_comes_early(page: Any) -> None:
    """What is longer than a glance is folded: until there, two and a half screens at most."""
    page.set_window_size(1300, 900)
    top = page.execute_script(
        "return document.querySelector('details').getBoundingClientRect().top + scrollY"
    )
    assert top < 2.5 * 900


def test_colors_of_the_figures_are_told_apart_by_the_color_blind(report: Path) -> None:
    okabe_ito = {"#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#009e73"}
    drawn = (report.parent / "figures" / "tradeoff.svg").read_text().lower()
    assert all(color in drawn for color in okabe_ito)
