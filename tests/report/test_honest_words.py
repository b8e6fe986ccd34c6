"""Beside every epsilon stands what it allows, and two kinds of promises are not passed off as one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from privhier.config import RunConfig, parse_config
from privhier.evaluation.flat import result_metrics
from privhier.evaluation.result import Result
from privhier.privacy.shown import TWO_PROMISES
from privhier.report.comparison import comparison
from privhier.report.page import render
from privhier.report.summary import summarize
from privhier.report.sweep_page import write_sweep_report

PURE, GAUSSIAN = (8.0, 0.0, 0.99966465), (8.0, 1e-5, 0.79758)


@pytest.fixture
def example() -> Result:
    return Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")


@pytest.fixture
def config() -> RunConfig:
    base = {"name": "words", "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]}}
    return parse_config(base | {"schedule": {"cloud_epochs": 1}})


def promising(result: Result, *promises: tuple[float, float, float]) -> Result:
    """The result with one row for each promise."""
    rows = [
        result.guarantees[0].model_copy(update={"epsilon": e, "delta": d, "allows": a, "name": f"row {n}"})
        if n
        else result.guarantees[0].model_copy(update={"epsilon": e, "delta": d, "allows": a})
        for n, (e, d, a) in enumerate(promises)
    ]
    return result.model_copy(update={"guarantees": rows})


def page_of(result: Result, config: RunConfig) -> str:
    """The page's words; its figures take seconds and say nothing of promises."""
    return render(result, config, drawings={}, reconstructions=[], command="privhier run")


def test_report_command_line_and_metrics_say_what_an_epsilon_allows(example, config):
    for promise, shown in ((PURE, "0.9997"), (GAUSSIAN, "0.7976")):
        result = promising(example, promise)
        words = f"allows telling two apart with balanced accuracy {shown}"
        assert page_of(result, config).count(words) == 3  # what may be said, the card, the table
        (line,) = [line for line in summarize(result) if line.startswith("guarantee, ")]
        assert f"at delta {'1e-05' if promise[1] else '0'}, {words}" in line
        assert result_metrics(result)["allows/own_releases_of_one_record"] == promise[2]


def test_two_kinds_of_promises_in_one_place_are_called_so(example, config):
    both, one = promising(example, PURE, GAUSSIAN), promising(example, GAUSSIAN, GAUSSIAN)
    for result, mixed in ((both, True), (one, False)):
        assert (TWO_PROMISES in page_of(result, config)) is mixed
        assert (f"note: {TWO_PROMISES}" in list(summarize(result))) is mixed
    table = comparison(
        [(config, promising(example, PURE)), (config, promising(example, GAUSSIAN))], ["pure", "gaussian"]
    )
    assert table["allows"].tolist() == [PURE[2], GAUSSIAN[2]]
    assert table.attrs["note"] == TWO_PROMISES
    assert "note" not in comparison([(config, one)] * 2, ["a", "b"]).attrs


def test_maximal_leakage_is_a_row_of_its_own_kind(example, config):
    own = promising(example, GAUSSIAN).guarantees[0]
    for nats, shown in ((1.0, "2.719"), (None, "none")):
        leak = own.model_copy(
            update={"name": "maximal leakage", "epsilon": None, "delta": None, "allows": None, "nats": nats}
            | {"measure": "maximal_leakage", "note": "a note"}
        )
        result = example.model_copy(update={"guarantees": [own, leak]})
        page = page_of(result, config)
        assert (" 2.719</span>" in page) is (nats is not None)
        assert "None for:" not in page
        (line,) = [line for line in summarize(result) if line.startswith("guarantee, maximal leakage")]
        assert shown in line
        assert result_metrics(result).get("maximal_leakage_nats") == nats


def test_a_result_from_before_says_nothing_and_still_is_shown(example, config):
    assert example.guarantees[0].allows is None
    page = page_of(example, config)
    assert "allows telling two apart" not in page
    assert not any("allows" in line for line in summarize(example))
    assert comparison([(config, example)], ["old"])["allows"].isna().all()


def promise_in(folder: Path, promise: tuple[float, float, float], put: Any) -> None:
    data = json.loads((folder / "result.json").read_text())
    data["guarantees"][0] |= dict(zip(("epsilon", "delta", "allows"), promise, strict=True))
    put(folder / "result.json", json.dumps(data))


@pytest.mark.parametrize("mixed", [False, True])
def test_the_sweep_page_compares_what_is_allowed(make_sweep, put, tmp_path, mixed):
    sweep = make_sweep(
        tmp_path, sigmas=[0.1, 0.3], widths=[8], defenses=["none"], seeds=[0], failed=0, pending=0
    )
    points = [SimpleNamespace(folder=path) for path in sorted((sweep / "points").iterdir())]
    for number, point in enumerate(points):
        promise_in(point.folder, PURE if mixed and number else GAUSSIAN, put)
    page = write_sweep_report(sweep).read_text()
    assert page.count(">allows 0.7976<") == (1 if mixed else 2)
    assert page.count(">allows 0.9997<") == (1 if mixed else 0)
    assert (TWO_PROMISES in page) is mixed
    assert "allows telling two apart with balanced accuracy 0.7976" in page
    front = json.loads((sweep / "frontier.json").read_text())
    allowed = sorted(c["allows"] for c in front["panels"][0]["candidates"])
    assert allowed == ([GAUSSIAN[2], PURE[2]] if mixed else [GAUSSIAN[2]] * 2)
    assert "allows/own releases of one record" in (sweep / "points.csv").read_text().splitlines()[0]
