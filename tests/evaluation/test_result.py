"""The schema of result.json: strict on the way in and on the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from privhier.errors import ResultError
from privhier.evaluation.result import Result, Score

EXAMPLE = Path(__file__).parents[1] / "made_up" / "example_result.json"


@pytest.fixture
def plain() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        (Path(__file__).parents[1] / "made_up" / "example_result.json").read_text()
    )
    return data


def test_what_is_written_reads_back_equal(tmp_path: Path, result: Result) -> None:
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == result
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digests.json", "result.json"]
    assert json.loads((tmp_path / "result.json").read_text())["schema"] == "privhier.result/1"


@pytest.mark.parametrize(
    "mend",
    [
        lambda d: d.update(schema="privhier.result/2"),
        lambda d: d.update(surprise=1),
        lambda d: d.pop("guarantees"),
        lambda d: d["utility"]["gender"]["cloud"]["auc"].update(low=0.99),
        lambda d: d["leakage"]["race"]["attacks"][0]["auc"].update(n=-1),
        lambda d: d["guarantees"][0].pop("does_not_cover"),
    ],
    ids=["schema", "unknown key", "missing part", "interval", "negative n", "unsaid limits"],
)
def test_reading_refuses_what_breaks_the_schema(tmp_path: Path, plain: dict[str, Any], mend: Any) -> None:
    mend(plain)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(ResultError, match=r"is not a readable privhier.result/1 file"):
        Result.read(path)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="privhier run CONFIG"):
        Result.read(tmp_path / "result.json")


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_writing_refuses_numbers_that_json_has_not(tmp_path: Path, result: Result, broken: float) -> None:
    odd = result.model_copy(update={"timing": {"total": broken}})
    with pytest.raises(ValueError, match=r"JSON compliant|finite number|valid number"):
        odd.write(tmp_path / "result.json")
    assert not (tmp_path / "result.json").exists()


def test_a_score_keeps_its_value_inside_its_interval() -> None:
    with pytest.raises(ValidationError, match="low <= value <= high"):
        Score(value=0.4, low=0.5, high=0.6, n=3)
