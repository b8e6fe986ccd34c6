"""The page of a sweep in a real browser: headless Chromium, from a file, offline."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from privhier.report.sweep_page import write_sweep_report


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = runpy.run_path(str(Path(__file__).parents[1] / "made_up" / "sweep.py"))["make_sweep"]
    return write_sweep_report(make(tmp_path_factory.mktemp("sweep")))


@pytest.fixture
def page(browser: Any, path: Path) -> Any:
    browser.set_window_size(1280, 900)
    browser.get(path.as_uri())
    return browser


def column(page: Any, number: int) -> list[str]:
    script = "return [...document.querySelectorAll('table.points tbody tr')].map(r => r.cells[{}].dataset.v)"
    return list(page.execute_script(script.format(number)))


def test_opens_without_a_complaint(page: Any) -> None:
    assert page.title.startswith("made_up_front")
    assert page.get_log("browser") == []


def test_hovering_a_point_shows_its_settings_and_leaving_hides_them(page: Any) -> None:
    from selenium.webdriver import ActionChains

    mark = page.find_element("css selector", ".mark.front")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    ActionChains(page).move_to_element(mark.find_element("css selector", ".shape")).perform()
    tip = page.find_element("id", "tip")
    assert tip.is_displayed()
    assert "release.sigma = " in tip.text
    assert "privhier run points/" in tip.text
    box = page.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.left, b.right]", tip)
    assert 0 <= box[0] < box[1] <= 1280
    ActionChains(page).move_to_element(page.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_a_click_opens_the_report_of_the_point(page: Any) -> None:
    mark = page.find_element("css selector", ".mark.front")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    mark.find_element("css selector", ".shape").click()
    assert page.current_url.endswith("/report.html")
    assert "/points/" in page.current_url


def test_headings_sort_both_ways(page: Any) -> None:
    names = page.execute_script(
        "return [...document.querySelectorAll('table.points thead th')].map(h => h.innerText)"
    )
    number = names.index("utility")
    button = page.find_elements("css selector", "table.points thead th")[number].find_element(
        "css selector", "button"
    )
    values = [float(v) for v in column(page, number)]
    page.execute_script("arguments[0].click()", button)
    assert [float(v) for v in column(page, number)] == sorted(values, reverse=True)
    page.execute_script("arguments[0].click()", button)
    assert [float(v) for v in column(page, number)] == sorted(values)
    assert len(values) == 35


def test_what_is_missing_sorts_last_either_way(page: Any) -> None:
    heads = page.find_elements("css selector", "table.points thead th")
    number = next(i for i, head in enumerate(heads) if head.text == "ε")
    for _ in range(2):
        page.execute_script("arguments[0].querySelector('button').click()", heads[number])
        values = column(page, number)
        assert values[-1] == ""
        assert "" not in values[: values.index("")]
        assert set(values[values.index("") :]) == {""}


def test_a_family_can_be_hidden_and_shown(page: Any) -> None:
    shown = "return [...document.querySelectorAll('a.mark')].filter(m => m.getClientRects().length).length"
    key = page.find_element("css selector", ".key[data-family='0']")
    before = page.execute_script(shown)
    page.execute_script("arguments[0].click()", key)
    assert page.execute_script(shown) == before - 3 * 12  # the plots for a phone are not shown here
    page.execute_script("arguments[0].click()", key)
    assert page.execute_script(shown) == before


def test_links_inside_the_page_and_to_the_files_lead_somewhere(page: Any, path: Path) -> None:
    links = page.execute_script(
        "return [...document.querySelectorAll('[href]')].map(a => a.getAttribute('href'))"
    )
    files = [link for link in links if not link.startswith(("#", "data:"))]
    assert len(files) > 100
    assert [link for link in files if not (path.parent / link).exists()] == []
    anchors = [link for link in links if link.startswith("#")]
    assert page.execute_script("return arguments[0].filter(a => !document.querySelector(a))", anchors) == []


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_window_size(width, 900)
    inner, scroll = page.execute_script(
        "return [document.documentElement.clientWidth, document.documentElement.scrollWidth]"
    )
    assert scroll <= inner <= width
    if width == 1280:
        assert page.execute_script(
            "return [...document.querySelectorAll('.scroll')].every(s => s.scrollWidth <= s.clientWidth)"
        )


@pytest.fixture
def phone(page: Any) -> Iterator[Any]:
    """The page on a screen of 390 pixels that is touched."""
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    yield page
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_the_first_tap_tells_and_the_second_opens(phone: Any) -> None:
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
    mark = phone.find_element("css selector", "svg.narrow .mark.front")
    phone.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
    place = phone.execute_script(
        "const b = arguments[0].querySelector('.shape').getBoundingClientRect();"
        "return [b.left + b.width / 2, b.top + b.height / 2, document.elementFromPoint("
        "b.left + b.width / 2, b.top + b.height / 2).closest('.mark').dataset.point]",
        mark,
    )

    def tap() -> None:
        finger = [{"x": place[0], "y": place[1]}]
        phone.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": finger})
        phone.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    from selenium.webdriver.support.ui import WebDriverWait

    tip = phone.find_element("id", "tip")
    tap()
    WebDriverWait(phone, 10).until(lambda _: tip.is_displayed())
    assert "utility 0." in tip.text
    assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
    assert "/points/" not in phone.current_url
    tap()
    WebDriverWait(phone, 10).until(lambda driver: f"/points/{place[2]}/" in driver.current_url)


def test_points_are_reached_by_the_keyboard_and_named_at_a_button(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    mark = page.find_element("css selector", "svg.wide .mark.front")
    page.execute_script("arguments[0].focus()", mark)
    tip = page.find_element("id", "tip")
    assert "leakage 0." in tip.text
    mark.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    names = page.find_elements("css selector", "svg.wide .front .name")
    page.execute_script("document.activeElement.blur()")
    assert not any(name.is_displayed() for name in names)
    button = page.find_element("css selector", "button.names")
    page.execute_script("arguments[0].click()", button)
    first = page.find_elements("css selector", "section:first-of-type svg.wide .front .name")
    assert all(name.is_displayed() for name in first)
    assert button.get_attribute("aria-pressed") == "true"


ATTACKERS = ("table", "logistic_regression", "gradient_boosting", "mlp", "cnn", "rbf_kernel", "averaging")
ADAPTIVE = ("fine_tune@white_box", "decensor@white_box", "logistic_regression@curious_cloud_labels")


def test_ten_attackers_with_long_names_fit_the_window(browser: Any, tmp_path: Path) -> None:
    made_up = runpy.run_path(str(Path(__file__).parents[1] / "made_up" / "sweep.py"))
    sweep = made_up["make_sweep"](tmp_path / "sweep", sigmas=(0.1,), widths=(8,), failed=0, pending=0)
    for path in (sweep / "points").glob("*/result.json"):
        data = json.loads(path.read_text())
        for leakage in data["leakage"].values():
            like = leakage["attacks"][0]
            models = {name: name.partition("@")[2] or "curious_cloud" for name in ATTACKERS + ADAPTIVE}
            leakage["attacks"] = [like | {"attack": n, "threat_model": model} for n, model in models.items()]
        made_up["put"](path, json.dumps(data))
    browser.set_window_size(1280, 900)
    browser.get(write_sweep_report(sweep).as_uri())
    tables = browser.find_elements("css selector", "table.breakers")
    assert len(tables) == 3
    assert all(len(table.find_elements("css selector", "thead th")) == 12 for table in tables)
    assert browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].every(s => s.scrollWidth <= s.clientWidth)"
    )
