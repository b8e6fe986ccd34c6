from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from privhier.errors import CheckpointError, ResultError
from privhier.evaluation.candidate import least_leaking
from privhier.evaluation.frontier import REFERENCE_POINT, frontier, panels
from privhier.evaluation.leakage_parts import Excess, LabelCounts
from privhier.evaluation.points import Point, estimate, group_by_setting, is_sweep, load_points, varying_keys
from privhier.evaluation.ranking import rank_families
from privhier.evaluation.result import Result, Score, WorstAttack
from privhier.metrics.label_auc import label_limit
from privhier.metrics.pareto import hypervolume
from privhier.report.page import _headline

Z = stats.norm.ppf(0.975)


def score(value, half=0.0):
    return Score(value=value, low=value - half, high=value + half, n=1000)


@pytest.fixture
def make_point(result):
    """A finished point of which only utility and the leakage of ``race==0`` matter."""

    def make(utility, leakage, *, family="a", number=0, seed=0, half=0.0, ceiling=None):
        found = result.leakage["race==0"]
        worst = found.worst.model_copy(update={"auc": score(leakage, half), "training_records": {}})
        changed = result.model_copy(
            update={
                "seed": seed,
                "utility_mean": result.utility_mean.model_copy(update={"auc": score(utility, half)}),
                "leakage": {"race==0": found.model_copy(update={"worst": worst, "ceiling": ceiling})},
            }
        )
        settings = {"number": number}
        return Point(f"{family}{number}-{seed}", "", settings, family, seed, "done", result=changed)

    return make


# Estimates over seeds


def test_one_seed_keeps_its_own_interval():
    lopsided = Score(value=0.7, low=0.66, high=0.72, n=10)
    found = estimate([lopsided], 0.95)
    assert (found.value, found.low, found.high, found.seeds) == pytest.approx((0.7, 0.66, 0.72, 1))


def test_seeds_without_within_run_noise_give_students_interval():
    values = [0.70, 0.74, 0.75]
    found = estimate([score(v) for v in values], 0.95)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_equal_seeds_do_not_shrink_the_bootstrap_interval():
    found = estimate([score(0.7, 0.02)] * 5, 0.95)
    assert (found.low, found.high) == pytest.approx((0.68, 0.72))


def test_both_sources_of_variance_add_up():
    found = estimate([score(0.70, 0.03), score(0.72, 0.03)], 0.95)
    between, within = 0.0002 / 2, (0.03 / Z) ** 2
    freedom = ((between + within) / between) ** 2
    half = stats.t.ppf(0.975, freedom) * np.sqrt(between + within)
    assert found.high - found.value == pytest.approx(half, abs=1e-9)
    assert found.value - found.low == pytest.approx(half, abs=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds):
    rng = np.random.default_rng(seeds)
    seed_effect, noise, hits = 0.02, 0.01, 0
    for _ in range(600):
        values = 0.7 + rng.normal(0, seed_effect, seeds) + rng.normal(0, noise, seeds)
        found = estimate([score(v, Z * noise) for v in values], 0.95)
        hits += found.low <= 0.7 <= found.high
    assert hits / 600 > 0.93


# Frontiers


def test_two_points_in_closed_form(make_point):
    found = frontier([make_point(0.9, 0.6), make_point(0.7, 0.5, number=1)], "race==0")
    assert [c.on_front for c in found.candidates] == [True, True]
    assert found.volume.value == pytest.approx(0.4 * 0.4 + 0.2 * 0.1)
    assert (found.volume.low, found.volume.high) == pytest.approx((0.18, 0.18))  # no noise, no interval
    assert found.volume.optimism == pytest.approx(0, abs=1e-12)
    assert found.reference_point == REFERENCE_POINT == (0.5, 1.0)
    assert found.chance == 0.5


def test_seeds_are_one_candidate_and_the_dominated_stay(make_point):
    points = [make_point(0.8 + 0.02 * s, 0.6, seed=s, half=0.01) for s in (0, 1)]
    found = frontier([*points, make_point(0.7, 0.7, number=1)], "race==0")
    assert [len(c.points) for c in found.candidates] == [2, 1]
    assert found.candidates[0].utility.value == pytest.approx(0.81)
    assert [c.on_front for c in found.candidates] == [True, False]
    assert found.candidates[0].front_share > 0.98
    assert found.candidates[1].front_share < 0.02


def test_noise_shows_in_the_share_of_draws_on_the_front(make_point):
    twins = [make_point(0.8, 0.6, number=n, half=0.02) for n in range(2)]
    found = frontier(twins, "race==0")
    # Independent errors: either beats the other in both directions with probability 1/4.
    assert [c.front_share for c in found.candidates] == pytest.approx([0.75, 0.75], abs=0.05)
    assert found.volume.low < found.volume.value <= found.volume.high


def test_a_family_that_dominates_does_so_in_every_draw(make_point):
    better = [make_point(0.9 - 0.1 * n, 0.6 - 0.02 * n, family="better", number=n) for n in range(3)]
    worse = [make_point(0.85 - 0.1 * n, 0.65 - 0.02 * n, family="worse", number=n) for n in range(3)]
    found = frontier([*better, *worse], "race==0")
    ahead = next(c for c in found.comparisons if c.a == "better")
    behind = next(c for c in found.comparisons if c.a == "worse")
    assert (ahead.share_larger, ahead.share_larger_corrected, ahead.share_covers) == (1, 1, 1)
    assert (ahead.additive_epsilon, ahead.coverage) == (pytest.approx(-0.05), 1)
    assert (behind.share_larger, behind.share_larger_corrected, behind.share_covers) == (0, 0, 0)
    assert (behind.additive_epsilon, behind.coverage) == (pytest.approx(0.05), 0)


def test_a_family_tried_more_often_is_not_favored_by_that(make_point):
    """Thirty noisy copies of one truth against one: plain shares are fooled, corrected ones far less."""
    rng, plain, corrected = np.random.default_rng(0), [], []
    for trial in range(12):
        noise = rng.normal(0, 0.02 / Z, (31, 2))
        points = [
            make_point(0.8 + u, 0.6 + v, family="many" if n else "one", number=n + 100 * trial, half=0.02)
            for n, (u, v) in enumerate(noise)
        ]
        versus = next(c for c in frontier(points, "race==0").comparisons if c.a == "many")
        plain.append(versus.share_larger)
        corrected.append(versus.share_larger_corrected)
    assert np.mean(plain) > 0.97
    assert np.mean(corrected) < np.mean(plain) - 0.05


def test_the_interval_of_the_volume_takes_optimism_into_account(make_point):
    points = [make_point(0.8, 0.6, number=n, half=0.03) for n in range(20)]
    volume = frontier(points, "race==0").volume
    assert volume.optimism > 0.01
    assert volume.low < volume.value - volume.optimism


def test_a_volume_of_nothing_may_still_be_more_than_nothing(make_point):
    volume = frontier([make_point(0.49, 0.6, half=0.05)], "race==0").volume
    assert (volume.value, volume.low) == (0, 0)
    assert volume.high > 0.01


def test_the_interval_of_the_volume_covers_the_truth_as_often_as_it_says(make_point):
    rng, hits, trials = np.random.default_rng(0), 0, 150
    angle = np.linspace(0.1, 1.4, 6)
    u, v = 0.55 + 0.35 * np.sin(angle), 0.95 - 0.35 * np.cos(angle)
    truth = hypervolume(u, v, REFERENCE_POINT)
    for _ in range(trials):
        noisy = zip(u + rng.normal(0, 0.01, 6), v + rng.normal(0, 0.01, 6), strict=True)
        points = [make_point(a, b, number=n, half=0.01 * Z) for n, (a, b) in enumerate(noisy)]
        volume = frontier(points, "race==0").volume
        hits += volume.low <= truth <= volume.high
    assert hits / trials >= 0.93


def test_the_same_points_give_the_same_frontier(make_point):
    points = [make_point(0.8 - 0.01 * n, 0.6 - 0.01 * n, number=n, half=0.02) for n in range(5)]
    assert frontier(points, "race==0") == frontier(points, "race==0")


def test_a_shared_raw_image_attack_counts_once_a_seed(make_point):
    raw = frontier([make_point(0.8, 0.6, number=n) for n in range(4)], "race==0").raw_image
    assert raw is not None
    assert (raw.value, raw.seeds) == (0.931, 1)


def test_references_count_once_a_seed_and_per_release_shape(make_point):
    found = frontier([make_point(0.8, 0.6, number=n) for n in range(4)], "race==0").references
    assert [(r.name, r.utility.seeds) for r in found] == [("open", 1), ("open_wide", 1)]


def test_points_that_cannot_be_compared_are_refused(make_point):
    one = make_point(0.8, 0.6)
    assert one.result is not None
    other = replace(one, result=one.result.model_copy(update={"dataset": {"name": "celeba"}}))
    assert len(panels([one, other])) == 2
    with pytest.raises(ResultError, match="several data sets or tasks"):
        frontier([one, other], "race==0")
    assert frontier([one, other], "race==0", other.bench).bench == other.bench
    with pytest.raises(ResultError, match=r"Known: \['race==0'\]"):
        frontier([one], "glasses")
    with pytest.raises(ResultError, match="same for all points"):
        frontier([one, replace(one, id="b", settings={"x": 1}, confidence=0.9)], "race==0")


# Sweep folders


def test_a_sweep_folder_becomes_typed_points(make_sweep, tmp_path):
    points = load_points(make_sweep(tmp_path))
    assert is_sweep(tmp_path)
    assert len(points) == 72
    assert [p.status for p in points[-3:]] == ["done", "failed", "pending"]
    assert points[-2].error is not None
    assert points[-2].result is None
    assert varying_keys(points) == ["defense.name", "model.bottleneck.size", "release.sigma"]
    assert [len(group) for group in group_by_setting(points)] == [2] * 35
    assert {p.family for p in points if p.unprotected} == {"none"}
    assert {p.settings["release.sigma"] for p in points if p.unprotected} == {0.0}
    assert [attribute for _, attribute in panels(points)] == ["race==0", "race", "identity"]


def test_the_front_of_a_sweep_is_that_of_the_definition(make_sweep, tmp_path):
    found = frontier(load_points(make_sweep(tmp_path)), "race")
    plane = [(c.utility.value, c.leakage.value) for c in found.candidates]
    expected = [not any(u >= a and v <= b and (u, v) != (a, b) for u, v in plane) for a, b in plane]
    assert [c.on_front for c in found.candidates] == expected
    assert 0 < sum(expected) < len(expected)
    assert found.front == sorted(found.front, key=lambda c: -c.utility.value)


def test_a_broken_point_is_failed_and_takes_nothing_down(put, make_sweep, tmp_path):
    sweep = make_sweep(tmp_path, failed=0, pending=0)
    whole = load_points(sweep)
    put(sweep / "points" / whole[0].id / "result.json", "{")
    put(sweep / "points" / whole[1].id / "config.yaml", "name: x\n")
    path = sweep / "points" / whole[2].id / "result.json"
    path.write_text(path.read_text().replace('"value": 0.', '"value": 0.0'))
    points = load_points(sweep)
    assert [p.status for p in points].count("failed") == 3
    assert "not a readable privhier.result/1" in str(points[0].error)
    assert "not the resolved configuration" in str(points[1].error)
    assert "edited or damaged" in str(points[2].error)
    assert len(frontier(points, "race").candidates) == 35


@pytest.mark.parametrize("edit", [lambda data: b"", lambda data: data[:-5], lambda data: data + b" "])
def test_an_edited_index_is_refused(make_sweep, tmp_path, edit):
    path = make_sweep(tmp_path, sigmas=[0.1], widths=[8]) / "points.json"
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(CheckpointError, match="edited or damaged"):
        load_points(tmp_path)


def test_an_error_kept_beside_the_point_is_shown(put, make_sweep, tmp_path):
    sweep = make_sweep(tmp_path, sigmas=[0.1], widths=[8], failed=1, pending=0)
    index = json.loads((sweep / "points.json").read_text())
    index["points"][-1]["error"] = None
    put(sweep / "points.json", json.dumps(index))
    folder = sweep / "points" / index["points"][-1]["id"]
    folder.mkdir()
    (folder / "error.json").write_text(json.dumps({"type": "OutputError", "message": "disk is full"}))
    assert load_points(sweep)[-1].error == "OutputError: disk is full"


@pytest.mark.parametrize("text", [None, "{", '{"schema": "other", "points": []}'])
def test_what_is_no_sweep_folder_is_refused(put, tmp_path, text):
    if text is not None:
        put(tmp_path / "points.json", text)
    with pytest.raises(ResultError, match="privhier sweep"):
        load_points(tmp_path)


def test_options_that_an_axis_sets_are_settings_of_their_own(put, make_sweep, tmp_path):
    sweep = make_sweep(tmp_path, sigmas=[0.1], widths=[8], seeds=[0], failed=0, pending=0)
    index = json.loads((sweep / "points.json").read_text())
    for row, options in zip(index["points"], [{}, {"weight": 1.0}, {"weight": 2.0}], strict=True):
        row["settings"] = {"defense.options": options}
    put(sweep / "points.json", json.dumps(index))
    points = load_points(sweep)
    assert [p.settings for p in points] == [
        {},
        {"defense.options.weight": 1.0},
        {"defense.options.weight": 2.0},
    ]
    assert varying_keys(points) == ["defense.options.weight"]


def test_a_point_cannot_lead_out_of_its_folder(put, make_sweep, tmp_path):
    sweep = make_sweep(tmp_path, sigmas=[0.1], widths=[8])
    index = json.loads((sweep / "points.json").read_text())
    index["points"][0]["id"] = "../../elsewhere"
    put(sweep / "points.json", json.dumps(index))
    with pytest.raises(ResultError):
        load_points(sweep)


def test_results_written_before_groups_existed_are_still_read(result):
    old = result.model_dump(mode="json", by_alias=True)
    del old["by_group"]
    for reference in old["references"].values():
        del reference["by_group"]
    assert Result.model_validate(old) == result


def test_only_the_records_own_releases_lend_a_point_its_epsilon(make_point):
    """A label's or the weights' epsilon must not stand beside raw features."""
    one = make_point(0.8, 0.6)
    assert one.result is not None
    own, *rest = one.result.guarantees
    assert frontier([one], "race==0").candidates[0].epsilon == own.epsilon
    labels = own.model_copy(update={"name": "task labels of one training record", "epsilon": 3.0})
    raw = own.model_copy(update={"epsilon": None, "delta": None})
    bare = one.result.model_copy(update={"guarantees": [raw, *rest, labels]})
    assert frontier([replace(one, result=bare)], "race==0").candidates[0].epsilon is None
    assert _headline(bare.guarantees) is None
    assert _headline(one.result.guarantees) == own


# Floors and label releases


def floored(point, floor, excess, counts=None):
    """The point with a measured floor, an excess over it, and label counts."""
    found = point.result.leakage["race==0"]
    labels = None if counts is None else LabelCounts(tasks=["gender"], sizes=[2], counts=counts)
    changed = found.model_copy(
        update={
            "floor": WorstAttack(attack="table", auc=score(floor, 0.01)),
            "excess": Excess(auc=score(excess, 0.01)),
            "label_counts": labels,
        }
    )
    return replace(point, result=point.result.model_copy(update={"leakage": {"race==0": changed}}))


def test_the_floor_is_a_line_and_points_of_one_seed_share_it(make_point):
    points = [floored(make_point(0.9, 0.6), 0.55, 0.05)]
    points += [floored(make_point(0.8, 0.54, number=1), 0.55, -0.01)]
    found = frontier(points, "race==0")
    assert (found.floor.value, found.floor.seeds) == (0.55, 1)
    assert [c.excess.value for c in found.candidates] == [0.05, -0.01]
    assert found.candidates[1].excess.low < 0
    assert frontier([make_point(0.9, 0.6)], "race==0").floor is None


def test_excess_over_seeds_may_lie_below_nothing_and_needs_all_of_them(make_point):
    points = [floored(make_point(0.9, 0.6, seed=s), 0.6, e) for s, e in ((0, -0.03), (1, -0.05))]
    (candidate,) = frontier(points, "race==0").candidates
    assert candidate.excess.value == pytest.approx(-0.04)
    (candidate,) = frontier([points[0], make_point(0.9, 0.6, seed=1)], "race==0").candidates
    assert candidate.excess is None


def test_label_releases_are_solved_from_the_counts_of_all_seeds(make_point):
    tables = [[[40, 20], [10, 30]], [[35, 25], [15, 25]]]
    points = [floored(make_point(0.9, 0.6, seed=s), 0.6, 0.0, table) for s, table in enumerate(tables)]
    again = floored(make_point(0.8, 0.6, seed=1, number=1), 0.6, 0.0, tables[1])  # the same people: once
    found = frontier([*points, again], "race==0").label_limit
    expected = label_limit(np.array(tables[0]) + np.array(tables[1]), [2], area=True)
    assert np.array(found) == pytest.approx(np.stack([expected.leakage, expected.utility], axis=1))
    assert frontier([make_point(0.9, 0.6)], "race==0").label_limit == ()


def test_the_leakage_of_a_point_is_its_headline(make_point):
    point = make_point(0.9, 0.55)
    found = point.result.leakage["race==0"]
    worst = found.worst.model_copy(update={"training_records": {"auc": score(0.61, 0.01)}})
    leakage = {"race==0": found.model_copy(update={"worst": worst})}
    point = replace(point, result=point.result.model_copy(update={"leakage": leakage}))
    assert frontier([point], "race==0").candidates[0].leakage.value == 0.61


# Below guessing


def test_leakage_below_guessing_counts_as_guessing(make_point):
    """A point at 0.414 was the whole front: it beat everything by bad luck of its attacker."""
    unlucky = make_point(0.70, 0.414, family="unlucky", half=0.02)
    fair = make_point(0.90, 0.50, family="fair", number=1, half=0.02)
    found = frontier([unlucky, fair], "race==0")
    assert [c.on_front for c in found.candidates] == [False, True]
    assert [c.counted for c in found.candidates] == [0.5, 0.5]
    assert found.candidates[0].leakage.value == 0.414  # what was measured is still told
    assert found.volume.value == pytest.approx(0.4 * 0.5)
    assert found.volume.high <= 0.25  # perfect utility at guessing
    assert found.families["unlucky"].value == pytest.approx(0.2 * 0.5)
    versus = next(c for c in found.comparisons if c.a == "fair")
    assert (versus.coverage, versus.share_larger) == (1.0, 1.0)
    # In half of the draws the other's leakage is above guessing: then, and only then, it is a trade.
    assert found.candidates[0].front_share == pytest.approx(0.5, abs=0.05)


def test_of_settings_at_guessing_the_most_useful_one_stands_for_its_family(make_point):
    points = [
        make_point(0.80, 0.45, family="a", half=0.001),
        make_point(0.89, 0.50, family="a", number=1, half=0.001),
        make_point(0.90, 0.70, family="none", number=2, half=0.001),
        make_point(0.89, 0.41, family="b", number=3, half=0.001),
    ]
    front = frontier(points, "race==0")
    ranking = rank_families(front, tolerated=0.2)
    chosen = {placed.family: placed.candidate for placed in ranking.placed}
    assert chosen["a"].utility.value == 0.89
    assert ranking.above["a", "b"] == pytest.approx(0.5, abs=0.1)  # both guess: nobody is above
    assert ranking.above["b", "none"] == 1.0
    assert least_leaking(front.candidates).utility.value == 0.89
    assert least_leaking([]) is None
