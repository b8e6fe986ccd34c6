"""LiRA finds what was memorized and nothing else; both membership attacks keep the same contract."""

from __future__ import annotations

import runpy
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from privhier.attacks.membership.base import MembershipAttack, membership_attacks
from privhier.attacks.membership.build import build_membership_attacks
from privhier.attacks.membership.lira import LiraAttack
from privhier.attacks.membership.rmia import RmiaAttack
from privhier.attacks.membership.shadows import shadow_models, training_rows, true_log_odds
from privhier.config import Choice
from privhier.errors import ConfigError, UnknownNameError
from privhier.metrics.classification import auc, auc_resampled
from privhier.metrics.intervals import group_bootstrap_weights, percentile_interval
from privhier.metrics.roc import tpr_at_fpr

toys = runpy.run_path(str(Path(__file__).with_name("toy.py")))
Toy = toys["Toy"]

CASES = [
    LiraAttack(),
    LiraAttack(offline=True),
    LiraAttack(own_variance_from=4, mirrored=False),
    RmiaAttack(),
    RmiaAttack(offline=True, mirrored=False),
]
every = pytest.mark.parametrize("attack", CASES, ids=repr)


def test_every_registered_attack_has_a_row_here():
    assert {type(attack) for attack in CASES} == {
        membership_attacks.get(name) for name in membership_attacks.names()
    }
    assert all(isinstance(attack, MembershipAttack) for attack in CASES)


@every
def test_memory_is_found_and_its_absence_too(attack):
    toy = Toy(memory=4.0)
    result = attack.run(toy.view)
    assert auc(result.scores["tail"], toy.member) > 0.85
    assert result.scores["tail"].dtype == np.float64
    assert toy.trained == 16
    assert result.seconds > 0
    records = 400 if isinstance(attack, LiraAttack) else 700
    assert result.queries == 17 * records * (2 if attack.mirrored else 1)
    plain = Toy(memory=0.0)
    scores = attack.run(plain.view).scores["tail"]
    weights = group_bootstrap_weights(plain.view.groups, 400, np.random.default_rng(0))
    interval = percentile_interval(auc(scores, plain.member), auc_resampled(scores, plain.member, weights))
    assert interval.low < 0.5 < interval.high


@every
def test_the_same_seed_gives_the_same_scores_and_another_seed_other_shadows(attack):
    toy = Toy(memory=2.0, n=60, population=40)
    first, second = (attack.run(replace(toy.view)).scores["tail"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = attack.run(replace(toy.view, seed=6)).scores["tail"]
    assert not np.array_equal(first, other)


@every
def test_one_candidate_survives(attack):
    result = attack.run(Toy(memory=2.0, n=1, population=6).view)
    assert result.scores["tail"].shape == (1,)
    assert np.isfinite(result.scores["tail"]).all()


@every
def test_an_attack_asks_for_nothing_it_is_not_handed_and_changes_nothing(attack):
    toy = Toy(memory=2.0, n=40, population=30)
    before = toy.view.images.copy(), toy.view.labels.copy(), toy.view.population.images.copy()
    poisoned = toys["poisoned"](toy.view)
    result = attack.run(poisoned)
    np.testing.assert_array_equal(result.scores["tail"], attack.run(toy.view).scores["tail"])
    after = toy.view.images, toy.view.labels, toy.view.population.images
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


@every
def test_confidences_that_round_to_one_give_finite_scores(attack):
    toy = Toy(memory=300.0, n=40, population=30)
    result = attack.run(toy.view)
    assert np.isfinite(result.scores["tail"]).all()
    assert auc(result.scores["tail"], toy.member) > 0.9


@pytest.mark.parametrize("attack", [a for a in CASES if not a.offline], ids=repr)
def test_several_tasks_tell_more_than_one(attack):
    one = Toy(memory=2.0)
    three = Toy(memory=2.0, tasks=3)
    found = [auc(attack.run(toy.view).scores["tail"], toy.member) for toy in (one, three)]
    assert found[1] > found[0] + 0.02


@every
def test_an_attack_is_frozen_and_its_repr_names_its_options(attack):
    with pytest.raises(FrozenInstanceError):
        attack.shadows = 2
    assert all(f"{field.name}=" in repr(attack) for field in fields(attack))


def test_shadow_models_share_out_the_candidates_and_match_the_targets_size():
    view = Toy(memory=0.0, n=101, population=50).view
    inside = np.stack([shadow.inside for shadow in shadow_models(view, 8)])
    assert (inside[:, :101].sum(axis=0) == 4).all()
    assert (inside[:, 101:].sum(axis=0) <= 4).all()
    assert len({row.tobytes() for row in inside}) == 8
    large = replace(view, records=70)
    assert [len(training_rows(large, k)) for k in (0, 1)] == [70, 70]
    assert len(training_rows(replace(view, records=1000), 0)) == 50 + 25


def test_a_persons_photos_are_all_in_a_shadow_model_or_none_is():
    view = Toy(memory=0.0, n=100, population=50).view
    grouped = replace(view, groups=np.arange(100) // 4)
    for number in range(6):
        rows = training_rows(grouped, number)
        counts = np.bincount(rows[rows < 100] // 4, minlength=25)
        assert set(counts.tolist()) == {0, 4}


def test_both_attacks_share_the_shadow_models_of_a_view():
    toy = Toy(memory=1.0, n=40, population=30)
    LiraAttack(shadows=8).run(toy.view)
    RmiaAttack(shadows=6).run(toy.view)
    assert toy.trained == 8
    RmiaAttack(shadows=10).run(toy.view)
    assert toy.trained == 10


def test_finished_shadow_models_are_read_back_and_none_of_another_world(tmp_path):
    toy = Toy(memory=1.0, n=40, population=30)
    whole = LiraAttack(shadows=6).run(toys["with_store"](toy, tmp_path)).scores["tail"]
    assert toy.trained == 6
    files = sorted(tmp_path.glob("shadow-*.npz"))
    assert len(files) == 6
    files[2].unlink()  # as if killed before the third was finished
    again = toys["with_store"](toy, tmp_path)
    np.testing.assert_array_equal(LiraAttack(shadows=6).run(again).scores["tail"], whole)
    assert toy.trained == 7
    other = replace(again, pipeline="another configuration")
    LiraAttack(shadows=6).run(other)
    assert toy.trained == 13


def test_log_odds_are_exact_where_confidence_rounds_to_one():
    logits = np.array([[100.0, 0.0, 0.0], [-100.0, 0.0, 0.0], [1.0, 2.0, 3.0]], dtype=np.float32)
    odds = true_log_odds(logits, np.array([0, 0, 2]))
    p = np.exp(3) / np.exp([1, 2, 3]).sum()
    expected = [100 - np.log(2), -100 - np.log(2), np.log(p) - np.log(1 - p)]
    np.testing.assert_allclose(odds, expected, rtol=1e-12)


@pytest.mark.parametrize("offline", [False, True])
def test_scores_are_the_likelihood_ratio_written_out(offline):
    attack = LiraAttack(shadows=8, mirrored=False, offline=offline, own_variance_from=4)
    toy = Toy(memory=2.0, n=30, population=20)
    shadows = shadow_models(toy.view, 8)
    scores = attack.run(toy.view).scores["tail"]
    logits = toy.view.target["tail"](toy.view.images, 0)[0]
    for record in (0, 7, 29):
        phi = true_log_odds(logits, toy.view.labels[:, 0])[record]
        said = np.array([s.said["tail"][0, record, 0] for s in shadows], dtype=float)
        inside = np.array([s.inside[record] for s in shadows])
        out = said[~inside]
        expected = -np.log(norm.sf(phi, out.mean(), out.std(ddof=1)))
        if not offline:
            own = said[inside]
            density = [norm.pdf(phi, x.mean(), x.std(ddof=1)) for x in (own, out)]
            expected = np.log(density[0] / density[1])
        assert scores[record] == pytest.approx(expected, rel=1e-4)


def test_lira_is_sure_of_some_records_before_it_is_wrong_once():
    toy = Toy(memory=4.0)
    assert tpr_at_fpr(LiraAttack().run(toy.view).scores["tail"], toy.member, 0.01) > 0.3


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        (Choice(name="lyra"), UnknownNameError, "Did you mean lira"),
        (Choice(name="lira", options={"shadow": 8}), ConfigError, "Did you mean shadows"),
        (Choice(name="lira", options={"shadows": 2}), ConfigError, "at least 4"),
        (Choice(name="lira", options={"shadows": 7}), ConfigError, "must be even"),
        (Choice(name="rmia", options={"offline_a": 1.5}), ConfigError, "at most 1"),
    ],
)
def test_wrong_choices_say_what_is_wrong(choice, error, message):
    with pytest.raises(error, match=message):
        build_membership_attacks([choice])


def test_a_name_met_again_gets_a_number():
    twice = [Choice(name="lira"), Choice(name="lira", options={"offline": True}), Choice(name="rmia")]
    built = build_membership_attacks(twice)
    assert [name for name, _ in built] == ["lira", "lira#2", "rmia"]
    assert built[1][1] == LiraAttack(offline=True)
