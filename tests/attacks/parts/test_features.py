from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from privhier.attacks.parts.features import FeatureBank, LastDraw, usable_spread
from privhier.attacks.parts.nets import channel_norm
from privhier.attacks.view import AuxiliarySet, View


@dataclass
class Counter:
    calls: int = 0


def view_of(clean, *, t, draws, noise, counter=None, victims=5):
    n = len(clean)

    def releases(k):
        if counter is not None:
            counter.calls += 1
        rng = np.random.default_rng(k)
        return (clean[:, None] + noise * rng.standard_normal((n, t, *clean.shape[1:]))).astype(np.float32)

    return View(
        threat_model="toy",
        releases=releases(10**6)[:victims],
        image_shape=(3, 8, 8),
        aux=AuxiliarySet(
            images=np.zeros((n, 3, 8, 8), np.uint8),
            labels={},
            n_classes={},
            groups=np.arange(n),
            draws=draws,
            releases=releases,
        ),
        seed=0,
    )


def test_narrow_releases_are_standardized_and_their_mean_is_a_column():
    clean = np.random.default_rng(0).standard_normal((300, 4)) * [1, 10, 100, 0] + 7
    bank = FeatureBank(view_of(clean, t=3, draws=2, noise=0.5), max_columns=64, name="x")
    assert bank.columns == 3 * 4 + 4
    np.testing.assert_allclose(bank.draw(0).mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(bank.draw(0).std(0), 1, atol=1e-3)
    assert bank.draw(0).dtype == bank.victims.dtype == np.float32
    assert np.array_equal(bank.draw(2), bank.draw(0))
    assert not np.array_equal(bank.draw(1), bank.draw(0))
    assert bank.queries == 2 * 300 * 3
    # The last four columns average three draws of noise: nearer to the clean value than any one.
    clean_column = (clean[:, 0] - clean[:, 0].mean()) / clean[:, 0].std()
    errors = abs(bank.draw(0)[:, [12, 0]] - clean_column[:, None]).mean(axis=0)
    assert errors[0] < 0.8 * errors[1]


def test_a_wide_release_is_projected_and_its_signal_survives_the_noise():
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((400, 3))
    clean = (hidden @ rng.standard_normal((3, 800))).reshape(400, 8, 10, 10)
    bank = FeatureBank(view_of(clean, t=2, draws=4, noise=3.0), max_columns=16, name="x")
    assert bank.columns <= 3 * 16
    solution, *_ = np.linalg.lstsq(bank.draw(0), hidden, rcond=None)
    residual = bank.draw(1) @ solution - hidden
    assert residual.var() < 0.1 * hidden.var()


def test_many_wide_releases_stay_bounded():
    clean = np.random.default_rng(2).standard_normal((100, 300))
    bank = FeatureBank(view_of(clean, t=20, draws=1, noise=0.1), max_columns=32, name="x")
    assert bank.columns == 32
    assert bank.victims.shape == (5, 32)


@pytest.mark.parametrize("max_columns", [4, 64])
def test_nothing_is_fitted_on_the_victims(max_columns):
    clean = np.random.default_rng(3).standard_normal((100, 40))
    view = view_of(clean, t=1, draws=1, noise=0.1)
    shifted = replace(view, releases=view.releases + 100)
    bank = FeatureBank(view, max_columns=max_columns, name="x")
    other = FeatureBank(shifted, max_columns=max_columns, name="x")
    assert np.array_equal(bank.draw(0), other.draw(0))
    assert not np.allclose(bank.victims, other.victims)


def test_the_last_draw_is_asked_for_once():
    counter = Counter()
    view = view_of(np.zeros((10, 3)), t=1, draws=3, noise=1.0, counter=counter)
    counter.calls = 0
    drawn = LastDraw(view.aux)
    for k in (0, 0, 3, 1, 1, 4):
        drawn(k)
    assert counter.calls == 2
    assert drawn.queries == 2 * 10


def test_what_never_moves_is_measured_in_the_widest_unit():
    spread = np.array([0.5, 0.0, 2.0, 1e-9])
    np.testing.assert_array_equal(usable_spread(spread), [0.5, 2.0, 2.0, 2.0])
    np.testing.assert_array_equal(usable_spread(np.array([3.0, 1e-5])), [3.0, 1e-5])
    np.testing.assert_array_equal(usable_spread(np.zeros(2, np.float32)), np.full(2, 1e-6, np.float32))
    maps = np.zeros((50, 2, 1, 1), np.float32)
    maps[::2, 0] = 1
    victim = torch.ones(1, 2, 1, 1)
    assert channel_norm(maps)(victim).abs().max() <= 2.5  # and not a million


def test_a_bank_keeps_what_memory_holds_and_gives_the_same_numbers(monkeypatch):
    """The first draws and the last one asked for are kept; others are projected again."""
    clean = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    whole_calls, few_calls = Counter(), Counter()
    whole = FeatureBank(view_of(clean, t=1, draws=5, noise=0.1, counter=whole_calls), max_columns=8, name="t")
    order = [0, 1, 2, 3, 4, 4, 4, 0, 1, 3, 2]
    expected = [whole.draw(k).copy() for k in order]
    monkeypatch.setattr("privhier.attacks.parts.features._KEPT", 2 * 40 * 6 * 4)
    few = FeatureBank(view_of(clean, t=1, draws=5, noise=0.1, counter=few_calls), max_columns=8, name="t")
    for k, columns in zip(order, expected, strict=True):
        assert np.array_equal(few.draw(k), columns)
        assert len(few._draws) <= 3
    assert few.queries == whole.queries == 5 * 40
    assert few_calls.calls == whole_calls.calls + 2, "3 and 2 once more; 4 was the last one asked for"
