"""Expressions with commas in lists: on the command line, in YAML, along the axes of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml import safe_dump, safe_load

from privhier.config import load_config, parse_config
from privhier.config.expressions import join_calls, quote_calls
from privhier.config.shared import load_shared, shared_part
from privhier.errors import ConfigError
from privhier.sweeps.spec import load_sweep

BINS = "bin(age, 20, 40, 60)"
SPELLINGS = {
    "[bin(age, 20, 40, 60)]": [BINS],
    "[bin(age,20,40,60)]": [BINS],
    "[ bin( age , 20 , 40 , 60 ) ]": [BINS],
    "[bin(age, 20, 40, 60), gender]": [BINS, "gender"],
    "[gender, bin(age, 20, 40, 60)]": ["gender", BINS],
    "[gender==female, bin(age, 20, 40, 60), race>=2]": ["gender==female", BINS, "race>=2"],
    "[bin(age, 20, 40, 60), bin(weight, 1.5, 70)]": [BINS, "bin(weight, 1.5, 70)"],
    "[bin(year, -1.5, 0, 1e3)]": ["bin(year, -1.5, 0, 1e3)"],
    '["bin(age, 20, 40, 60)"]': [BINS],
    "['bin(age, 20, 40, 60)', gender]": [BINS, "gender"],
    "[bin(age, 20), 'bin(age, 20, 40, 60)', gender]": ["bin(age, 20)", BINS, "gender"],
    '[race=="East Asian", bin(age, 20, 40, 60)]': ['race=="East Asian"', BINS],
    "[who==O'Neil, bin(age, 20, 40, 60)]": ["who==O'Neil", BINS],
    "['role==x (old', gender]": ["role==x (old", "gender"],
    "[age (years)>30, gender]": ["age (years)>30", "gender"],
    "[gender]": ["gender"],
}


def plain(expression: str) -> str:
    """Without the blanks that mean nothing."""
    return expression.replace(" ", "")


def base(**dataset: object) -> dict[str, object]:
    section = {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"], **dataset}
    return {"name": "t", "dataset": section, "schedule": {"joint_epochs": 1}}


def same(found: list[str], wanted: list[str]) -> bool:
    return [plain(one) for one in found] == [plain(one) for one in wanted]


@pytest.mark.parametrize("key", ["task", "sensitive"])
@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_means_the_same_everywhere(tmp_path: Path, key: str, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(safe_dump(base()))
    given = load_config(file, [f"dataset.{key}={text}"])
    assert same(getattr(given.dataset, key), SPELLINGS[text])
    (tmp_path / "flow.yaml").write_text(safe_dump(base(**{key: "HERE"})).replace("HERE", text))
    written = load_config(tmp_path / "flow.yaml")
    assert same(getattr(written.dataset, key), SPELLINGS[text])
    (tmp_path / "saved.yaml").write_text(written.to_yaml())
    assert load_config(tmp_path / "saved.yaml") == written


def test_on_the_command_line_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(safe_dump(base()))
    config = load_config(file, ["dataset.task=[bin(age, 020, 1_0, 0x10, 1:30)]"])  # to YAML: 16, 10, 16, 90
    assert config.dataset.task == ["bin(age, 020, 1_0, 0x10, 1:30)"]


OPEN = ["[bin(age, 20, 40]", "[bin(age, 20, gender]", "[gender, bin(age]", "[bin(age]"]
CLOSED = ["[bin(age: x, 3)]", "[bin(age, [20], 4)]"]  # quotes are put around these on the command line


@pytest.mark.parametrize(
    ("text", "override"), [*((text, True) for text in OPEN), *((text, False) for text in OPEN + CLOSED)]
)
def test_what_cannot_be_joined_asks_for_quotes(tmp_path: Path, text: str, override: bool) -> None:
    written = base(sensitive="gender" if override else "HERE")
    (tmp_path / "run.yaml").write_text(safe_dump(written).replace("HERE", text))
    with pytest.raises(ConfigError, match="put quotes around") as caught:
        load_config(tmp_path / "run.yaml", [f"dataset.sensitive={text}"] if override else [])
    assert caught.value.key == "dataset.sensitive"


def test_the_cloud_reads_them_too(tmp_path: Path) -> None:
    config = parse_config(base(task=safe_load(f"[{BINS}, gender]")))
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    (tmp_path / "shared.yaml").write_text(shared_part(config).to_yaml())
    assert load_shared(tmp_path / "run.yaml").hash() == load_shared(tmp_path / "shared.yaml").hash()
    assert load_shared(tmp_path / "shared.yaml", [f"task=[{BINS}]"]).task == [BINS]


def test_along_the_axes_of_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        f"""
name: s
config: {safe_dump(base(), default_flow_style=True)}
overrides: {{dataset.task: [{BINS}, smiling]}}
axes:
  - key: dataset.sensitive
    values: [[{BINS.replace("age", "size")}], [male, bin(size, 1.5, 3)]]
  - name: what
    variants: {{fine: {{dataset.task: [{BINS}]}}, coarse: {{dataset.task: [bin(age, 30)]}}}}
"""
    )
    points = load_sweep(tmp_path / "sweep.yaml").points()
    assert [point.config.dataset.task for point in points] == [[BINS], ["bin(age, 30)"]] * 2
    first, last = points[0], points[-1]
    assert first.config.dataset.sensitive == first.settings["dataset.sensitive"] == ["bin(size, 20, 40, 60)"]
    assert last.settings == {
        "dataset.sensitive": ["male", "bin(size, 1.5, 3)"],
        "dataset.task": ["bin(age, 30)"],
    }
    assert "'bin(size'" not in first.label


def test_other_keys_and_kinds_are_left_alone() -> None:
    assert join_calls("bin(age, 20)") == "bin(age, 20)"
    assert join_calls(None) is None
    assert join_calls([1, True, "x"]) == [1, True, "x"]
    assert quote_calls("bin(age, 20)") == "bin(age, 20)"
    with pytest.raises(ConfigError):
        parse_config(base(task=[1]))
