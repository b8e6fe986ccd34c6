"""Our certificate beside FARE's: how far above the truth each lies, and how often below it.

    python benchmarks/certificates.py [--draws N]

Both bound the balanced accuracy of any attacker who holds one letter of K, two classes, at 95 %. FARE
(Jovanovic, Balunovic, Dimitrov and Vechev, ICML 2023, with the budgets of its published code) needs three
samples: the classes' base rates, intervals for the classes within every cell, and the cells' shares. The
second and the third are disjoint halves of the n people; the first is given to it for nothing: n further
people. Ours takes the n people at once and needs no base rates.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
from privhier.metrics.optimal import best_balanced_accuracy
from privhier.privacy.certificates import Shares, bounds
from privhier.privacy.channel_bounds import mixed
from privhier.privacy.labels import flip_matrix

Array = npt.NDArray[Any]

ERROR, BASE_RATES, SHARES = 0.05, 0.005, 0.005
"""FARE's error budget in all, and what of it goes to the base rates and to the cells' shares."""


def clopper_pearson(hits: Array, trials: Array, error: float) -> tuple[Array, Array]:
    """Two-sided exact interval of a binomial's probability; elementwise, [0, 1] without trials."""
    hits, trials = np.broadcast_arrays(np.asarray(hits, float), np.asarray(trials, float))
    low, high = np.zeros(hits.shape), np.ones(hits.shape)
    some, short = hits > 0, hits < trials
    low[some] = beta.ppf(error / 2, hits[some], (trials - hits)[some] + 1)
    high[short] = beta.ppf(1 - error / 2, hits[short] + 1, (trials - hits)[short])
    return low, high


def fare_bound(base: Array, cells: Array, shares: Array) -> float:
    r"""FARE's upper bound on balanced accuracy, :math:`\sum_i P(z_i) \max(\alpha P(0|z_i), \beta P(1|z_i))`.

    Args:
        base: ``(2,)`` people of each class in the first sample: an exact interval of the base rate bounds
            :math:`\alpha = 1/(2 P(0))` and :math:`\beta = 1/(2 P(1))` from above.
        cells: ``(2, K)`` people of each class in every cell of the second sample: t_i bounds the maximum, an
            exact interval for each cell at a K-th of the budget.
        shares: ``(K,)`` people in every cell of the third sample: their mean of t_i, and Hoeffding.
    """
    low, high = clopper_pearson(base[0], base.sum(), BASE_RATES)
    weights = 1 / (2 * np.maximum([float(low), 1 - float(high)], 1e-12))
    low, high = clopper_pearson(cells[0], cells.sum(axis=0), (ERROR - BASE_RATES - SHARES) / cells.shape[1])
    t = np.minimum(np.maximum(weights[0] * high, weights[1] * (1 - low)), weights.max())
    people = shares.sum()
    slack = (t.max() - t.min()) * np.sqrt(np.log(1 / SHARES) / (2 * people))
    return min(1.0, float(t @ shares / people + slack))


def our_bound(counts: Array, channel: Array | None = None) -> float:
    """Ours from ``(2, K)`` people of each class and letter."""
    people = counts.sum(axis=1)
    frequencies = counts / people[:, None]
    single = Shares(np.repeat(np.eye(2, dtype=np.int64), people, axis=0))
    return float(bounds(frequencies, single, ERROR, channel=channel)[0])


def tilted(letters: int, strength: float) -> Array:
    """Two classes whose odds climb over the alphabet; strength 0: no difference, 1: as large as can be."""
    slope = strength * np.linspace(-1, 1, letters)
    return np.stack([1 - slope, 1 + slope]) / letters


def compare(
    letters: int, people: int, strength: float, share: float, draws: int
) -> tuple[float, Array, Array]:
    """The truth, and both bounds ``(draws,)`` on samples in which class 1 has that share."""
    rng = np.random.default_rng(0)
    conditional = tilted(letters, strength)
    cell_of = (np.array([[1 - share], [share]]) * conditional).ravel()
    ours, theirs = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        halves = rng.multinomial(people // 2, cell_of, size=2).reshape(2, 2, letters)
        first = rng.binomial(people, share)
        ours[draw] = our_bound(halves.sum(axis=0))
        theirs[draw] = fare_bound(np.array([people - first, first]), halves[0], halves[1].sum(axis=0))
    return float(best_balanced_accuracy(conditional)), ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="samples of every setting")
    draws = parser.parse_args().draws
    if draws < 1:
        parser.error("takes at least one draw")
    print(f"balanced accuracy of any attacker at 95 %; means over {draws} samples")
    print("     K       n  class 1   truth    ours  FARE's   ours too low  FARE's too low")
    for share, strength in ((0.5, 0.1), (0.5, 0.8), (0.2, 0.1)):
        for letters in (4, 16, 64, 256):
            for people in (1000, 10_000):
                truth, ours, theirs = compare(letters, people, strength, share, draws)
                print(
                    f"{letters:6d} {people:7d} {share:8.1f} {truth:7.3f} {ours.mean():7.3f} "
                    f"{theirs.mean():7.3f} {(ours < truth).mean():14.3f} {(theirs < truth).mean():15.3f}"
                )
    print("behind randomized response, K = 16, n = 10000, ours alone:")
    conditional, rng = tilted(16, 0.8), np.random.default_rng(0)
    for epsilon in (1.0, 2.0, 4.0, 8.0):
        channel = flip_matrix(epsilon, 16).numpy()
        truth = float(best_balanced_accuracy(mixed(conditional, channel)))
        samples = (rng.multinomial(5000, row, size=draws) for row in conditional)
        ours = np.array([our_bound(np.stack(pair), channel) for pair in zip(*samples, strict=True)])
        print(
            f"  epsilon {epsilon:g}: truth {truth:.3f}, ours {ours.mean():.3f}, "
            f"too low {(ours < truth).mean():.3f}"
        )


if __name__ == "__main__":
    main()
