import runpy

import numpy as np
import pytest
from scipy.stats import binomtest


@pytest.fixture(scope="module")
def benchmark(repository):
    return runpy.run_path(str(repository / "benchmarks" / "certificates.py"))


def test_intervals_are_clopper_and_pearson_s(benchmark):
    low, high = benchmark["clopper_pearson"](np.array([0, 3, 9, 0]), np.array([9, 9, 9, 0]), 0.1)
    for n, hits in enumerate((0, 3, 9)):
        exact = binomtest(hits, 9).proportion_ci(0.9, method="exact")
        assert (low[n], high[n]) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert (low[3], high[3]) == (0.0, 1.0)


def test_fare_s_bound_by_hand(benchmark):
    base, cells, shares = np.array([400, 600]), np.array([[30, 10], [20, 0]]), np.array([35, 25])
    rates = binomtest(400, 1000).proportion_ci(0.995, method="exact")
    alpha, beta = 1 / (2 * rates.low), 1 / (2 * (1 - rates.high))
    one, two = (binomtest(k, n).proportion_ci(0.98, method="exact") for k, n in ((30, 50), (10, 10)))
    t = [max(alpha * one.high, beta * (1 - one.low)), max(alpha * two.high, beta * (1 - two.low))]
    expected = (35 * t[0] + 25 * t[1]) / 60 + abs(t[1] - t[0]) * np.sqrt(np.log(200) / 120)
    assert benchmark["fare_bound"](base, cells, shares) == pytest.approx(min(1, expected))
    assert benchmark["fare_bound"](10_000 * base, 10_000 * cells, 10_000 * shares) == pytest.approx(
        35 / 60 * max(0.6 / 0.8, 0.4 / 1.2) + 25 / 60 * 1 / 0.8, abs=0.01
    )


def test_both_hold_and_ours_is_the_tighter_where_letters_are_many(benchmark):
    for letters, factor in ((4, 1.1), (64, 0.8)):
        truth, ours, theirs = benchmark["compare"](letters, 2000, 0.3, 0.5, 100)
        assert (ours < truth).mean() <= 0.05
        assert (theirs < truth).mean() <= 0.05
        assert ours.mean() - truth < factor * (theirs.mean() - truth)
