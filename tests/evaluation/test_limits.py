"""``privhier audit RUN --fail-above``: what decides, what is printed, and how a pipeline learns of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from privhier.cli.main import main
from privhier.config import parse_config
from privhier.errors import ConfigError, ResultError
from privhier.evaluation.limits import Limit, check_limits, parse_limit
from privhier.evaluation.result import AttributeLeakage, Result, Score, WorstAttack
from privhier.storage.sealed import Sealed

EXAMPLE = Path(__file__).parents[1] / "made_up" / "example_result.json"
IDENTITY = "identity"


def score(high: float) -> Score:
    return Score(value=high - 0.02, low=high - 0.04, high=high, n=100)


def leaking(worst: WorstAttack, **more) -> SimpleNamespace:
    """A result that hides ``male`` alone."""
    leakage = AttributeLeakage(classes=["no", "yes"], worst=worst, attacks=[], majority=0.5)
    fields = {name: getattr(leakage, name) for name in AttributeLeakage.model_fields} | more
    return SimpleNamespace(leakage={"male": SimpleNamespace(**fields)})


def above(result, most: float, name: str = "male"):
    (checked,) = check_limits(result, [Limit(name, most)])
    return checked


def test_the_larger_of_all_scores_counts_on_test_and_on_training_records():
    worst = WorstAttack(attack="mlp", auc=score(0.56), balanced_accuracy=score(0.54))
    assert (above(leaking(worst), 0.56).above, above(leaking(worst), 0.5599).above) == (False, True)
    more = worst.model_copy(update={"training_records": {"auc": score(0.61)}})
    found = above(leaking(more), 0.6)
    assert (found.above, found.value, found.metric) == (True, 0.61, "auc")
    assert "mlp on training records" in found.line()
    balanced = WorstAttack(attack="mlp", auc=score(0.52), balanced_accuracy=score(0.57))
    assert above(leaking(balanced), 0.55).metric == "balanced_accuracy"
    told = leaking(worst, worst_with_labels=WorstAttack(attack="table", auc=score(0.7)))
    assert above(told, 0.65).above
    assert "task label known" in above(told, 0.65).line()


@pytest.mark.parametrize(
    ("certified", "value", "metric"),
    [
        ({"auc": 0.58, "balanced_accuracy": 0.54}, 0.58, "auc"),
        ({"auc": None, "balanced_accuracy": 0.54}, 0.54, "balanced_accuracy"),
        ({"verification_auc": 0.57}, 0.57, "verification_auc"),
    ],
)
def test_a_certificate_decides_where_there_is_one(certified, value, metric):
    worst = WorstAttack(attack="mlp", auc=score(0.9))
    result = leaking(worst, certified=SimpleNamespace(confidence=0.95, n=100, people=90, **certified))
    found = above(result, value)
    assert (found.value, found.metric, found.certified, found.above) == (value, metric, True, False)
    assert above(result, value - 1e-6).above
    assert "certified" in found.line()


@pytest.mark.parametrize("certified", [None, SimpleNamespace(auc=None, balanced_accuracy=None)])
def test_no_certificate_and_no_attacker_is_bad_input(certified):
    worst = WorstAttack(attack="mlp", auc=score(0.6))
    assert above(leaking(worst, certified=certified), 0.5).certified is False
    with pytest.raises(ResultError, match="neither a certificate nor an attacker"):
        above(leaking(WorstAttack(attack="none"), certified=certified), 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("male", "ATTRIBUTE:NUMBER"),
        ("male:", "ATTRIBUTE:NUMBER"),
        (":0.5", "ATTRIBUTE:NUMBER"),
        ("", "ATTRIBUTE:NUMBER"),
        ("male:half", "not a number"),
        ("male:55%", "not a number"),
        ("male:nan", "in \\[0, 1\\]"),
        ("male:1.01", "in \\[0, 1\\]"),
        ("male:-0.1", "in \\[0, 1\\]"),
        ("male:inf", "in \\[0, 1\\]"),
    ],
)
def test_what_is_no_limit_is_refused(text, words):
    with pytest.raises(ConfigError, match=f"--fail-above.*{words}"):
        parse_limit(text)


def test_the_last_colon_divides():
    assert parse_limit("bin(age, 1:30):0.6") == Limit("bin(age, 1:30)", 0.6)
    assert [parse_limit(f"identity:{x}").most for x in ("0", "1", "5e-1")] == [0.0, 1.0, 0.5]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a configuration and a result; nothing else is needed for a check."""
    base = {"name": "limits", "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]}}
    config = parse_config(base | {"schedule": {"cloud_epochs": 1}})
    folder = Sealed(tmp_path / "run")
    folder.root.mkdir()
    folder.bind(config=config.hash(), data="made up")
    folder.write(folder.root / "config.yaml", config.to_yaml())
    folder.write(folder.root / "result.json", EXAMPLE.read_text())
    return folder.root


def code_of(run: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["audit", str(run), *arguments])
    return int(caught.value.code or 0)


def test_exit_codes_of_a_check(run, capsys):
    worst = Result.read(EXAMPLE).leakage["race==0"].worst
    highs = [worst.auc.high, worst.balanced_accuracy.high, *(s.high for s in worst.training_records.values())]
    most = max(highs)
    assert code_of(run, "--check-only", "--fail-above", f"race==0:{most}") == 0
    assert "within" in capsys.readouterr().out
    assert code_of(run, "--check-only", "--fail-above", f"race==0:{most - 1e-9}") == 1
    assert "ABOVE" in capsys.readouterr().out
    both = ["--fail-above", "race == 0:1", "--fail-above", f"{IDENTITY}:0.1"]
    assert code_of(run, "--check-only", *both) == 1
    out = capsys.readouterr().out
    assert [line.startswith("limit ") for line in out.splitlines()] == [True, True]
    assert "limit race==0" in out
    assert "verification AUC" in out
    assert not (run / "audit.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fail-above", "rase==0:0.5"], "race==0"),
        (["--fail-above", "gender:0.5"], "not an attribute that this run hides"),
        (["--fail-above", "race==0:x"], "not a number"),
        (["--fail-above", "race==0:2"], "[0, 1]"),
        (["--check-only"], "without --fail-above"),
    ],
)
def test_bad_input_exits_with_2_before_anything_is_drawn(run, capsys, arguments, words):
    for more in ([], ["--check-only"]):
        if arguments == more:
            continue
        assert code_of(run, *arguments, *[flag for flag in more if flag not in arguments]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert error.startswith("error: ")
        assert words in error
        assert not (run / "audit.json").exists()


def test_a_run_without_a_result_and_one_that_was_edited_exit_with_2(run, tmp_path, capsys):
    limit = ["--check-only", "--fail-above", "race==0:0.9"]
    bare = shutil.copytree(run, tmp_path / "bare")
    (bare / "result.json").unlink()
    assert code_of(bare, *limit) == 2
    edited = shutil.copytree(run, tmp_path / "edited")
    data = json.loads((edited / "result.json").read_text())
    data["leakage"]["race==0"]["worst"]["attack"] = "nobody"
    (edited / "result.json").write_text(json.dumps(data))
    assert code_of(edited, *limit) == 2
    assert code_of(tmp_path / "nowhere", *limit) == 2
    assert "Traceback" not in capsys.readouterr().err
