"""Families in order: what is chosen, what comes last, and how sure the order is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from privhier.evaluation.breakers import breakers
from privhier.evaluation.frontier import frontier
from privhier.evaluation.points import Point
from privhier.evaluation.ranking import rank_families
from privhier.evaluation.result import AttackScores, Score, WorstAttack

Z = stats.norm.ppf(0.975)


def score(value, half=0.0):
    return Score(value=value, low=value - half, high=value + half, n=1000)


def attack(name, value, model="curious_cloud", training=None):
    training = {} if training is None else {"auc": score(training, 0.01)}
    return AttackScores(
        attack=name, repr=name, threat_model=model, auc=score(value, 0.01), training_records=training
    )


@pytest.fixture
def make_point(result):
    """A finished point of which only utility and the leakage of ``race==0`` matter."""

    def make(family, utility, leakage, *, number=0, seed=0, half=0.0, attacks=(), floor=0.55):
        found = result.leakage["race==0"]
        worst = found.worst.model_copy(update={"auc": score(leakage, half), "training_records": {}})
        told = None if floor is None else WorstAttack(attack="table", auc=score(floor))
        leaks = found.model_copy(
            update={
                "worst": worst,
                "ceiling": None,
                "attacks": list(attacks),
                "floor": told,
                "headline": None,
            }
        )
        changed = result.model_copy(
            update={
                "seed": seed,
                "utility_mean": result.utility_mean.model_copy(update={"auc": score(utility, half)}),
                "leakage": {"race==0": leaks},
            }
        )
        return Point(f"{family}{number}-{seed}", "", {"number": number}, family, seed, "done", result=changed)

    return make


# The ranking


def test_least_leakage_within_the_tolerated_loss_counts_and_nothing_beyond_it(make_point):
    front = frontier(
        [
            make_point("none", 0.90, 0.80),
            make_point("good", 0.895, 0.60),
            make_point("good", 0.70, 0.51, number=1),
            make_point("dear", 0.86, 0.50),
        ],
        "race==0",
    )
    tight = rank_families(front, tolerated=0.01)
    assert [one.family for one in tight.placed] == ["good", "none", "dear"]
    assert tight.placed[0].candidate.leakage.value == 0.60
    assert tight.placed[2].candidate is None
    assert tight.placed[2].task_lost == pytest.approx(0.04)
    assert tight.baseline == 0.90
    assert tight.above["good", "none"] == 1.0
    assert [one.above_next for one in tight.placed] == [1.0, 1.0, None]
    loose = rank_families(front, tolerated=0.05)
    assert [one.family for one in loose.placed] == ["dear", "good", "none"]


def test_the_share_is_that_of_two_normal_errors(make_point):
    half = 0.02
    points = [
        make_point("none", 0.9, 0.9),
        make_point("a", 0.9, 0.62, half=half),
        make_point("b", 0.9, 0.64, half=half),
    ]
    ranking = rank_families(frontier(points, "race==0"), tolerated=0.2)
    wanted = stats.norm.cdf(0.02 / (np.sqrt(2) * half / Z))
    assert ranking.above["a", "b"] == pytest.approx(wanted, abs=0.04)
    assert ranking.above["a", "b"] + ranking.above["b", "a"] == pytest.approx(1)
    assert ranking.placed[0].family == "a"
    assert sum(one.first for one in ranking.placed) == pytest.approx(1)
    assert rank_families(frontier(points, "race==0"), tolerated=0.2) == ranking


def test_equal_families_and_families_out_of_the_running_tie(make_point):
    points = [make_point("none", 0.9, 0.9), make_point("a", 0.5, 0.6), make_point("b", 0.5, 0.7)]
    ranking = rank_families(frontier(points, "race==0"), tolerated=0.01)
    assert ranking.above["a", "b"] == 0.5
    assert ranking.placed[0].family == "none"


def test_without_a_bare_network_the_most_useful_one_is_the_baseline(make_point):
    points = [make_point("a", 0.9, 0.7), make_point("b", 0.8, 0.6)]
    ranking = rank_families(frontier(points, "race==0"), tolerated=0.05)
    assert ranking.baseline == 0.9
    assert [one.family for one in ranking.placed] == ["a", "b"]
    alone = rank_families(frontier(points[:1], "race==0"), tolerated=0.05)
    assert (alone.placed[0].wins, alone.placed[0].above_next) == (1.0, None)
    with pytest.raises(ValueError, match="tolerated"):
        rank_families(frontier(points, "race==0"), tolerated=2)


# Who breaks whom


def test_every_attacker_stands_beyond_the_floor_over_the_seeds(make_point):
    points = [
        make_point(
            "none", 0.9, 0.8, attacks=[attack("mlp", 0.8), attack("fine_tune@white_box", 0.79, "white_box")]
        ),
        *(
            make_point(
                "veil",
                0.9,
                0.7,
                seed=seed,
                attacks=[attack("mlp", 0.56 + 0.02 * seed), attack("decensor", 0.7, "white_box")],
            )
            for seed in (0, 1)
        ),
    ]
    found = breakers(frontier(points, "race==0"))
    assert found.attackers == ("mlp", "fine_tune@white_box", "decensor")
    assert found.adaptive == {"fine_tune@white_box", "decensor"}
    none, veil = found.rows
    assert none.excess["mlp"].value == pytest.approx(0.25)
    assert veil.excess["mlp"].value == pytest.approx(0.02)
    assert veil.excess["mlp"].seeds == 2
    assert (none.winner, veil.winner) == ("mlp", "decensor")
    assert (none.fell, veil.fell) == (False, True)
    assert veil.adaptive_gain == pytest.approx(0.13)
    assert none.adaptive_gain == pytest.approx(-0.01)


def test_a_gain_within_the_interval_is_no_fall(make_point):
    attacks = [attack("mlp", 0.60), attack("decensor", 0.605, "white_box")]
    row = breakers(frontier([make_point("veil", 0.9, 0.7, attacks=attacks)], "race==0")).rows[0]
    assert row.winner == "decensor"
    assert not row.fell


def test_training_records_count_where_they_have_a_floor_of_their_own(make_point, result):
    point = make_point("none", 0.9, 0.8, attacks=[attack("mlp", 0.6, training=0.9)])
    found = breakers(frontier([point], "race==0")).rows[0]
    assert found.excess["mlp"].value == pytest.approx(0.05)
    leak = point.result.leakage["race==0"]
    floor = leak.floor.model_copy(update={"training_records": {"auc": score(0.7)}})
    held = {"race==0": leak.model_copy(update={"floor": floor})}
    changed = Point(
        *("x", "", {}, "none", 0, "done"), result=point.result.model_copy(update={"leakage": held})
    )
    assert breakers(frontier([changed], "race==0")).rows[0].excess["mlp"].value == pytest.approx(0.2)


def test_without_a_floor_it_is_guessing_that_they_are_held_against(make_point):
    found = breakers(
        frontier([make_point("none", 0.9, 0.8, attacks=[attack("mlp", 0.6)], floor=None)], "race==0")
    )
    assert not found.floored
    assert found.rows[0].excess["mlp"].value == pytest.approx(0.1)


def test_who_loses_too_much_stands_by_the_most_useful_setting_and_is_marked(make_point):
    points = [
        make_point("none", 0.9, 0.8, attacks=[attack("mlp", 0.8)]),
        make_point("dear", 0.7, 0.5, attacks=[attack("mlp", 0.56)]),
        make_point("dear", 0.8, 0.6, number=1, attacks=[attack("mlp", 0.6)]),
    ]
    rows = breakers(frontier(points, "race==0")).rows
    assert [row.within for row in rows] == [True, False]
    assert rows[1].excess["mlp"].value == pytest.approx(0.05)


def test_an_attacker_of_some_seeds_only_says_nothing_of_the_family(make_point):
    points = [
        make_point("none", 0.9, 0.8, attacks=[attack("mlp", 0.8), attack("cnn", 0.9)]),
        make_point("none", 0.9, 0.8, seed=1, attacks=[attack("mlp", 0.8)]),
    ]
    assert list(breakers(frontier(points, "race==0")).rows[0].excess) == ["mlp"]
