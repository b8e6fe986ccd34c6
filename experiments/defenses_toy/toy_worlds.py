"""Two worlds whose law is known: what is drawn from them, and what the best release leaks in theory.

Legend: d coordinates of x, S classes of the secret, K letters. Classes are 0 and 1 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from privhier.metrics.label_space import best_utility
from privhier.metrics.optimal import best_auc, best_balanced_accuracy

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SIDE, CELL = 8, 4
"""Pixels of an image's side, and of a block's: an image carries 3 * 2 * 2 = 12 coordinates."""
COORDINATES = 3 * (SIDE // CELL) ** 2


@dataclass(frozen=True)
class Drawn:
    """Records of a world: images uint8 ``(n, 3, 8, 8)``, task and secret int64 ``(n,)``."""

    images: npt.NDArray[np.uint8]
    task: IntArray
    secret: IntArray


def as_images(x: FloatArray) -> npt.NDArray[np.uint8]:
    """Coordinates ``(n, 12)`` in pixel units as blocks of equal pixels, rounded and cut to a byte."""
    blocks = x.reshape(len(x), 3, SIDE // CELL, SIDE // CELL).repeat(CELL, axis=2).repeat(CELL, axis=3)
    return np.asarray(blocks.round().clip(0, 255), dtype=np.uint8)


@dataclass(frozen=True)
class LinearGaussian:
    """``x = a Y + b S + N(0, 1)`` in 12 coordinates; Y, S = -1 or 1 are equal with probability ``tie``.

    Attributes:
        sizes: Lengths of a and b.
        cosine: Of the angle between them.
        tie: P(Y = S); 1/2: independent.
    """

    sizes: tuple[float, float] = (1.3, 1.3)
    cosine: float = 0.7
    tie: float = 0.6

    @cached_property
    def directions(self) -> tuple[FloatArray, FloatArray]:
        """Vectors a and b, ``(12,)`` each."""
        first, second = np.zeros((2, COORDINATES))
        first[::2], second[1::2] = 1.0, 1.0
        first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
        b = self.cosine * first + np.sqrt(1 - self.cosine**2) * second
        return self.sizes[0] * first, self.sizes[1] * b

    def draw(self, n: int, rng: np.random.Generator) -> Drawn:
        """So many records; 22 pixel units to a standard deviation, so that bytes cut next to nothing."""
        task = rng.integers(0, 2, n)
        secret = np.where(rng.random(n) < self.tie, task, 1 - task)
        a, b = self.directions
        x = np.outer(2 * task - 1, a) + np.outer(2 * secret - 1, b) + rng.standard_normal((n, COORDINATES))
        return Drawn(as_images(127.5 + 22 * x), task, secret)

    @property
    def label_floor(self) -> float:
        """AUC of the secret from the true task label."""
        return max(self.tie, 1 - self.tie)

    @property
    def whole(self) -> tuple[float, float]:
        """AUC of task and secret from all of x."""
        return self._areas_of_plane(0), self._areas_of_plane(1)

    def curve(self, *, sigma: float = 0.0, clip: float = 1.0, points: int = 61) -> FloatArray:
        """Rows ``(secret AUC, task AUC)`` of ``w x`` clipped and noised, from blind to b to along b.

        The gain before the clip is the one best for the task. sigma 0: neither clip nor noise.
        """
        a, b = self.directions
        along = b / np.linalg.norm(b)
        blind = a - (a @ along) * along
        blind /= np.linalg.norm(blind)
        rows = []
        for angle in np.linspace(0, np.pi / 2, points):
            w = np.cos(angle) * blind + np.sin(angle) * along
            gains = (0.5, 1.0, 2.0, 4.0) if sigma else (1.0,)
            rows.append(
                max((self._areas(w @ a, w @ b, gain, sigma, clip) for gain in gains), key=lambda row: row[1])
            )
        return np.array(rows)

    def optimum(self, *, sigma: float = 0.0, clip: float = 1.0) -> tuple[float, float]:
        """``(secret AUC, task AUC)`` of the best number that is blind to b: what leaks, leaks by y."""
        secret, task = self.curve(sigma=sigma, clip=clip, points=2)[0]
        return float(secret), float(task)

    def best_task(self, leaked: float, *, sigma: float = 0.0, clip: float = 1.0) -> float:
        """The highest task AUC of one number along any direction that leaks at most so much."""
        curve = self.curve(sigma=sigma, clip=clip)
        allowed = curve[curve[:, 0] <= max(leaked, curve[:, 0].min()) + 1e-9]
        return float(allowed[:, 1].max())

    def _areas(self, on_a: float, on_b: float, gain: float, sigma: float, clip: float) -> tuple[float, float]:
        grid = np.linspace(-7, 7, 401)
        cells = np.stack(
            [norm.pdf(grid - (y * on_a + s * on_b)) for y in (-1, 1) for s in (-1, 1)]
        )  # y major
        cells /= cells.sum(axis=1, keepdims=True)
        if sigma:
            out = np.linspace(-clip - 5 * sigma, clip + 5 * sigma, 201)
            channel = norm.pdf(out[None, :], np.clip(gain * clip * grid, -clip, clip)[:, None], sigma)
            cells = cells @ (channel / channel.sum(axis=1, keepdims=True))
        return self._from_cells(cells)

    def _from_cells(self, cells: FloatArray) -> tuple[float, float]:
        """Secret and task AUC of the four conditional distributions (y, s) = 00, 01, 10, 11."""
        tie, rest = self.tie, 1 - self.tie
        task = best_auc(tie * cells[3] + rest * cells[2], tie * cells[0] + rest * cells[1])
        secret = best_auc(tie * cells[3] + rest * cells[1], tie * cells[0] + rest * cells[2])
        return float(secret), float(task)

    def _areas_of_plane(self, column: int) -> float:
        """Of the two coordinates in the plane of a and b, which hold all there is; column 0: task."""
        a, b = self.directions
        basis = np.linalg.qr(np.stack([a, b], axis=1))[0]
        grid = np.linspace(-7, 7, 141)
        cells = []
        for y, s in product((-1, 1), repeat=2):
            mean = basis.T @ (y * a + s * b)
            cells.append(np.outer(norm.pdf(grid - mean[0]), norm.pdf(grid - mean[1])).ravel())
        cells = np.array([cell / cell.sum() for cell in cells])
        return self._from_cells(cells)[1 - column]


@dataclass(frozen=True)
class Discrete:
    """Eight values of x, equally likely; task and secret are drawn from their shares given x."""

    task: tuple[float, ...] = (0.95, 0.95, 0.75, 0.75, 0.25, 0.25, 0.05, 0.05)
    """P(y = 1 | x)."""
    secret: tuple[float, ...] = (0.95, 0.9, 0.2, 0.1, 0.9, 0.8, 0.1, 0.05)
    """P(s = 1 | x), independent of y given x."""

    def draw(self, n: int, rng: np.random.Generator) -> Drawn:
        """So many records: value i lights block i of the image."""
        x = rng.integers(0, len(self.task), n)
        lit = np.full((n, COORDINATES), 127.5)
        lit[np.arange(n), x] = 255.0
        task = (rng.random(n) < np.array(self.task)[x]).astype(np.int64)
        secret = (rng.random(n) < np.array(self.secret)[x]).astype(np.int64)
        return Drawn(as_images(lit), task, secret)

    @property
    def values(self) -> npt.NDArray[np.uint8]:
        """One image of every value, ``(8, 3, 8, 8)``."""
        lit = np.full((len(self.task), COORDINATES), 127.5)
        lit[np.arange(len(self.task)), np.arange(len(self.task))] = 255.0
        return as_images(lit)

    def scores(self, channel: FloatArray) -> tuple[float, float]:
        """Balanced accuracy of the optimal attacker and of the optimal reader of the task.

        Args:
            channel: ``(8, K)``, distribution of the letters given x.
        """
        secret, task = (best_balanced_accuracy(self._given(p) @ channel) for p in (self.secret, self.task))
        return float(secret), float(task)

    @property
    def whole(self) -> tuple[float, float]:
        """Balanced accuracy of secret and task from x itself."""
        return self.scores(np.eye(len(self.task)))

    @property
    def label_floor(self) -> float:
        """Balanced accuracy of the secret from the true task label."""
        tasks = np.stack([1 - np.array(self.task), np.array(self.task)], axis=1)
        return self.scores(tasks)[0]

    def best_task(self, leaked: float) -> float:
        """The highest of any (random) release that leaks at most so much: a linear program.

        Two letters suffice: whoever hears the best guess of y instead of a release reads y as well, and no
        more of s.
        """
        share = 1 / len(self.task)
        joint = share * np.stack([1 - np.array(self.secret), np.array(self.secret)], axis=1)
        gain = self._given(self.task).T / 2
        return float(best_utility(joint, gain, max(leaked, 0.5))[0])

    def deterministic(self) -> FloatArray:
        """Rows ``(leakage, task)`` of every map of the eight values to two letters, by enumeration."""
        maps = np.array(list(product((0, 1), repeat=len(self.task))))
        return np.array([self.scores(np.eye(2)[letters]) for letters in maps])

    def optimum(self, within: float = 0.02) -> tuple[float, float]:
        """``(leakage, task)``: the least leakage, to 0.001, whose best task is ``within`` of all of it."""
        wanted = self.whole[1] - within
        limits = np.arange(0.5, self.whole[0] + 0.002, 0.001)
        least = next(limit for limit in limits if self.best_task(float(limit)) >= wanted)
        return float(least), self.best_task(float(least))

    @staticmethod
    def _given(positive: tuple[float, ...]) -> FloatArray:
        """P(x | class), ``(2, 8)``."""
        shares = np.stack([1 - np.array(positive), np.array(positive)])
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))
