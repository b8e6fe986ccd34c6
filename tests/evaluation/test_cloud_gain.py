"""What the cloud adds to the edge's own exit: a paired difference, on every run and on the frontier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from privhier.config import RunConfig, parse_config
from privhier.evaluation.flat import result_metrics
from privhier.evaluation.points import estimate
from privhier.evaluation.result import Result, Score
from privhier.evaluation.scores import Sample, auc_curve, gain
from privhier.report.page import render
from privhier.report.summary import show_gain, summarize
from privhier.report.sweep_page import write_sweep_report


def sample_of(n: int = 400, groups: int = 200) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    people = np.arange(n) % groups
    sample = Sample.draw(truth, 2, people, resamples=300, confidence=0.95, seed=0, name="test")
    return sample, truth + rng.normal(0, 1.5, n)


def probabilities(scores: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-scores))
    return np.stack([1 - p, p], axis=1).astype(np.float32)


def test_it_is_paired_over_people():
    """Two places of nearly the same answers: the difference is known far better than either score."""
    sample, scores = sample_of()
    rng = np.random.default_rng(1)
    edge = auc_curve(sample, probabilities(scores))
    cloud = auc_curve(sample, probabilities(scores + rng.normal(0, 0.05, len(scores))))
    found, alone = gain(sample, [cloud], [edge]), edge.score(sample)
    assert found.value == pytest.approx(cloud.value - edge.value)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.2 * (alone.high - alone.low)
    assert found.n == 400
    same = gain(sample, [edge], [edge])
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_a_better_cloud_gains_a_worse_one_loses_and_tasks_are_averaged():
    sample, scores = sample_of()
    rng = np.random.default_rng(2)
    good = auc_curve(sample, probabilities(scores))
    poor = auc_curve(sample, probabilities(scores + rng.normal(0, 6, len(scores))))
    up, down = gain(sample, [good], [poor]), gain(sample, [poor], [good])
    assert up.low > 0 > down.high
    assert down.value == -up.value
    both = gain(sample, [good, good], [poor, good])
    assert both.value == pytest.approx(up.value / 2)


def test_the_words_follow_the_interval():
    for low, high, words in (
        (0.01, 0.03, "the cloud adds"),
        (-0.03, -0.01, "edge exit does better"),
        (-0.01, 0.01, "not told apart"),
        (0.0, 0.0, "not told apart"),
    ):
        text = show_gain(Score(value=(low + high) / 2, low=low, high=high, n=9))
        assert words in text
        assert f"[{low:+.3f}, {high:+.3f}]" in text


@pytest.fixture
def result() -> Result:
    example = Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")
    found = Score(value=0.0123, low=0.0045, high=0.0201, n=900)
    utility = {
        name: task.model_copy(update={"cloud_gain": found.model_copy(update={"value": 0.02 * (k + 0.5)})})
        for k, (name, task) in enumerate(example.utility.items())
    }
    mean = example.utility_mean.model_copy(update={"cloud_gain": found})
    return example.model_copy(update={"utility": utility, "utility_mean": mean})


@pytest.fixture
def config() -> RunConfig:
    base = {"name": "gain", "dataset": {"name": "synthetic", "task": ["gender"], "sensitive": ["race==0"]}}
    return parse_config(base | {"schedule": {"cloud_epochs": 1}})


def test_report_command_line_and_metrics_say_it(result, config):
    page = render(result, config, drawings={}, reconstructions=[], command="privhier run")
    assert page.count("+0.012 [+0.004, +0.020]") == 2  # the card, the sentence
    assert "+0.010 [" in page
    assert "+0.030 [" in page
    (line,) = [line for line in summarize(result) if line.startswith("cloud gain")]
    assert "+0.012 [+0.004, +0.020], the cloud adds to the edge" in line
    metrics = result_metrics(result)
    assert metrics["utility_mean/cloud_gain"] == 0.0123
    assert metrics["utility_mean/cloud_gain_low"] == 0.0045
    assert metrics["utility/gender/cloud_gain"] == 0.01


def test_a_result_from_before_has_none_and_is_still_shown(config):
    old = Result.read(Path(__file__).parents[1] / "made_up" / "example_result.json")
    page = render(old, config, drawings={}, reconstructions=[], command="privhier run")
    assert 'id="cloud-gain"' not in page
    assert not any(line.startswith("cloud gain") for line in summarize(old))


def test_a_negative_gain_over_seeds_is_not_cut_at_nought():
    gains = [Score(value=v, low=v - 0.01, high=v + 0.01, n=100) for v in (-0.03, -0.02)]
    found = estimate(gains, 0.95, least=-1.0)
    assert found.value == pytest.approx(-0.025)
    assert found.low < -0.03
    assert found.high < 0.1


def test_the_frontier_has_a_column_of_it(make_sweep, put, tmp_path):
    sizes = {"sigmas": [0.1, 0.3], "widths": [8], "defenses": ["none"], "seeds": [0]}
    sweep = make_sweep(tmp_path, **sizes, failed=0, pending=0)
    first = sorted((sweep / "points").iterdir())[0]
    data = json.loads((first / "result.json").read_text())
    data["utility_mean"]["cloud_gain"] = {"value": -0.012, "low": -0.02, "high": -0.004, "n": 900}
    put(first / "result.json", json.dumps(data))
    page = write_sweep_report(sweep).read_text()
    assert page.count('data-v="-0.012"') == 1
    assert "cloud gain -0.012 [-0.020, -0.004]" in page  # the tooltip
    front = json.loads((sweep / "frontier.json").read_text())
    gains = [c["cloud_gain"] for c in front["panels"][0]["candidates"]]
    assert sorted(g is None for g in gains) == [False, True]
    assert "utility/cloud_gain_low" in (sweep / "points.csv").read_text().splitlines()[0]
