from dataclasses import replace

import numpy as np
import pytest

from privhier.attacks.gradient_boosting import GradientBoostingAttack
from privhier.attacks.logistic_regression import LogisticRegressionAttack
from privhier.attacks.parts.search import Integers, LogUniform, OneOf, random_settings
from privhier.attacks.view import AuxiliarySet, View

SPACE = {"rate": LogUniform(1e-3, 1.0), "leaves": Integers(3, 40), "power": OneOf((0.0, 0.5, 1.0))}


def toy(leak=2.0, seed=0, columns=24):
    """Vectors with one weak direction among strong useless ones: the penalty and the scale matter."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 400)
    clean = rng.standard_normal((400, columns)) * np.geomspace(5, 0.2, columns)
    clean[:, 3] += leak * (2 * labels - 1)

    def release(rows, draw):
        noise = np.random.default_rng((seed, draw)).standard_normal((len(rows), 1, columns))
        return (clean[rows, None] + 0.3 * noise).astype(np.float32)

    rows = np.arange(200)
    aux = AuxiliarySet(
        images=np.zeros((200, 3, 8, 8), np.uint8),
        labels={"gender": labels[:200]},
        n_classes={"gender": 2},
        groups=rows,
        draws=2,
        releases=lambda k: release(rows, k),
    )
    return View("toy", release(rows + 200, 99), (3, 8, 8), aux, seed=1), labels[200:]


def test_values_stay_within_their_ranges_and_reach_both_halves():
    view, _ = toy()
    drawn = random_settings(view, "mlp", "gender", SPACE, 300)
    rates = np.array([setting["rate"] for setting in drawn])
    leaves = np.array([setting["leaves"] for setting in drawn])
    assert rates.min() >= 1e-3
    assert rates.max() <= 1.0
    assert 0.4 < (rates < 10**-1.5).mean() < 0.6  # half of the decades, not half of the values
    assert leaves.min() == 3
    assert leaves.max() == 40
    assert {setting["power"] for setting in drawn} == {0.0, 0.5, 1.0}


def test_draws_are_those_of_the_attackers_own_stream():
    view, _ = toy()
    first = random_settings(view, "mlp", "gender", SPACE, 5)
    assert first == random_settings(view, "mlp", "gender", SPACE, 8)[:5]
    assert first != random_settings(view, "mlp", "age", SPACE, 5)
    assert first != random_settings(replace(view, seed=2), "mlp", "gender", SPACE, 5)
    assert random_settings(view, "mlp", "gender", SPACE, 0) == []


@pytest.mark.parametrize(
    "make", [lambda: LogUniform(0.0, 1.0), lambda: LogUniform(2.0, 1.0), lambda: Integers(0, 4)]
)
def test_a_range_that_is_none_is_refused(make):
    with pytest.raises(ValueError, match="low <= high"):
        make()


@pytest.mark.parametrize("attack", [LogisticRegressionAttack, GradientBoostingAttack])
def test_more_trials_never_validate_worse(attack):
    """The grid comes first and is kept: random settings can only be better on the own split."""
    view, _ = toy(leak=0.7)
    small = {"iterations": 20} if attack is GradientBoostingAttack else {}
    scores = [attack(target="gender", trials=n, **small).run(view).validation for n in (0, 2, 8)]
    assert scores == sorted(scores)


def test_a_setting_off_the_grid_is_found():
    """Given only a hopeless penalty on the grid, random ones between it and a good one win."""
    view, _ = toy(leak=0.7)
    grid = LogisticRegressionAttack(target="gender", penalties=(1e-6, 100.0), trials=0).run(view)
    searched = LogisticRegressionAttack(target="gender", penalties=(1e-6, 100.0), trials=12).run(view)
    assert searched.validation > grid.validation
    assert searched.selected["C"] not in (1e-6, 100.0)
