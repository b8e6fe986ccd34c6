"""Releases ``(n, T, *shape)`` as flat matrices for attackers that want columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA

from privhier.attacks.once import once
from privhier.attacks.view import AuxiliarySet, FloatArray, IntArray, View
from privhier.seeding import stream_seed

_PCA_ROWS = 6000
"""Rows the principal axes are fitted on: enough for 256 axes, and bounds time and memory."""
_SHARED_AXES = 256
"""Axes that are fitted at once, so that attackers who want fewer take the first of them."""
_BLOCK = 512
"""Records projected at a time, so that a wide release is never copied whole."""
_KEPT = 512 * 2**20
"""Bytes of features that a bank keeps; draws beyond are projected again when they are asked for, all but the
last one."""


def usable_spread(spread: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Standard deviations to divide by: what the attacker's own records never show gets the widest one.

    Divided by a tiny number instead, the first victim with a letter that no auxiliary record has would lie a
    million standard deviations off.
    """
    least = 1e-6
    return np.where(spread > least, spread, np.maximum(spread.max(initial=0), least)).astype(spread.dtype)


@dataclass(frozen=True)
class _Projection:
    """``(x - mean) @ axes``; axes float32 ``(d, q)``."""

    mean: FloatArray
    axes: FloatArray

    def __call__(self, rows: FloatArray) -> FloatArray:
        return np.asarray(rows @ self.axes - self.mean @ self.axes, dtype=np.float32)


def _some_rows(count: int, seed: int) -> IntArray:
    """Sorted row numbers, at most ``_PCA_ROWS`` of ``count``."""
    if count <= _PCA_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _PCA_ROWS, replace=False))


def _principal_axes(rows: FloatArray, components: int, seed: int) -> _Projection:
    if len(rows) > _PCA_ROWS:
        rows = rows[_some_rows(len(rows), seed)]
    count = min(components, rows.shape[1], max(1, len(rows) - 1))
    pca = PCA(count, svd_solver="randomized", iterated_power=3, random_state=seed % 2**32).fit(rows)
    return _Projection(pca.mean_.astype(np.float32), np.ascontiguousarray(pca.components_.T, np.float32))


def _shared_axes(view: View, draw: FloatArray, count: int) -> _Projection:
    """The first ``count`` principal axes of the view's releases; fitted once for all attacks on it."""
    wanted = max(count, _SHARED_AXES)

    def fitted() -> _Projection:
        seed = stream_seed(view.seed, "attack", "pca")
        # Chosen before the draws are averaged: T wide releases of everybody need not be copied.
        rows = draw.shape[0] * draw.shape[1]
        chosen = _some_rows(rows, seed)
        mean = draw.reshape(rows, -1)[chosen]
        for k in range(1, view.aux.draws):
            mean += view.aux.releases(k).reshape(rows, -1)[chosen]
        mean /= view.aux.draws
        return _principal_axes(mean, wanted, seed)

    whole = once(view, f"axes/{wanted}", fitted)
    return _Projection(whole.mean, np.ascontiguousarray(whole.axes[:, :count]))


def task_columns(labels: IntArray | None, classes: tuple[int, ...]) -> FloatArray | None:
    """Task labels ``(n, tasks)`` one-hot side by side, float32 ``(n, sum of classes)``; None stays None."""
    if labels is None:
        return None
    blocks = [labels[:, [task]] == np.arange(count) for task, count in enumerate(classes)]
    return np.hstack(blocks).astype(np.float32)


class FeatureMap:
    """Flattening of T releases, principal axes where wide, standardization; fitted on the auxiliary set.

    With T > 1 the columns are all T releases side by side **and** their mean, so that an attacker
    can average repeated noise away without having to learn it. A release of more than
    ``max_columns`` values is first projected on principal axes shared by its T versions; if T times
    that is still wider than twice ``max_columns``, a second projection follows.

    The axes are fitted on the mean over the draws of each auxiliary record: the attacker owns K
    draws, and averaging them brings the axes closer to those of the features behind the noise.
    Center and spread are those of single draws, as a victim's releases are.

    Args:
        view: Gives the auxiliary releases; the victims' are not looked at.
        max_columns: Widest matrix that is used without a projection, and the number of axes.
        name: Name of the attack, for its random stream.
    """

    def __init__(self, view: View, *, max_columns: int, name: str) -> None:
        aux = view.aux
        self._first: _Projection | None = None
        self._second: _Projection | None = None
        draw = aux.releases(0)
        n, self._t = draw.shape[:2]
        self.records, self.releases_per_record = int(n), int(self._t)
        width = int(np.prod(draw.shape[2:]))
        if width > max_columns:
            self._first = _shared_axes(view, draw, max_columns)
        columns = self._flatten(draw)
        if columns.shape[1] > 2 * max_columns:
            seed = stream_seed(view.seed, "attack", name, "pca-of-releases")
            self._second = _principal_axes(columns, max_columns, seed)
            columns = self._second(columns)
        self.mean: FloatArray = columns.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.spread: FloatArray = usable_spread(columns.std(axis=0, dtype=np.float64)).astype(np.float32)
        """Standard deviation of each column before standardization, float32 ``(q,)``."""

    @property
    def projected(self) -> bool:
        """Whether principal axes were fitted."""
        return self._first is not None

    def _flatten(self, releases: FloatArray) -> FloatArray:
        blocks: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(releases), _BLOCK):
            part = releases[start : start + _BLOCK]
            rows = part.reshape(len(part) * self._t, -1)
            if self._first is not None:
                rows = self._first(rows)
            stacked = rows.reshape(len(part), self._t, -1)
            flat = stacked.reshape(len(part), -1)
            blocks.append(np.hstack([flat, stacked.mean(axis=1)]) if self._t > 1 else flat)
        return np.concatenate(blocks).astype(np.float32, copy=False)

    def __call__(self, releases: FloatArray) -> FloatArray:
        """Releases float32 ``(n, T, *shape)`` to standardized float32 ``(n, q)``."""
        columns = self._flatten(releases)
        if self._second is not None:
            columns = self._second(columns)
        return (columns - self.mean) / self.spread


def _beside(columns: FloatArray, labels: FloatArray | None) -> FloatArray:
    return columns if labels is None else np.hstack([columns, labels])


class FeatureBank:
    """Features of every draw of the auxiliary set and of the victims, computed once and kept.

    Where the view holds task labels, they are further columns, one-hot.

    ``K * n * q`` float32 values: 65 MB for 16 draws of 4,000 records in 256 columns. Of more than ``_KEPT``
    the first draws are kept, and the one asked for last: the numbers are the same.
    """

    def __init__(self, view: View, *, max_columns: int, name: str) -> None:
        self._view = view
        self._map = FeatureMap(view, max_columns=max_columns, name=name)
        self._draws: dict[int, FloatArray] = {}
        self._used: set[int] = set()
        self._labels = task_columns(view.aux.task_labels, view.task_classes)
        self.victims: FloatArray = _beside(
            self._map(view.releases), task_columns(view.task_labels, view.task_classes)
        )
        spread = self._map.spread / self._map.spread.max()
        known = 0 if self._labels is None else self._labels.shape[1]
        self.spread: FloatArray = np.concatenate([spread, np.ones(known, dtype=np.float32)])
        """Spread of each column over the largest one, in (0, 1]: undoes standardization."""

    @property
    def columns(self) -> int:
        """Number of columns, q."""
        return int(self.victims.shape[1])

    @property
    def draws(self) -> int:
        """K."""
        return self._view.aux.draws

    def draw(self, k: int) -> FloatArray:
        """Standardized features of draw ``k % K`` of the auxiliary set, float32 ``(n, q)``."""
        k %= self.draws
        self._used.add(k)
        if k not in self._draws:
            columns = _beside(self._map(self._view.aux.releases(k)), self._labels)
            kept = list(self._draws)
            if len(kept) > max(1, _KEPT // max(columns.nbytes, 1)):
                del self._draws[kept[-1]]
            self._draws[k] = columns
        return self._draws[k]

    def rows(self, indices: IntArray, draws: int) -> FloatArray:
        """The first ``draws`` draws of the records ``indices``, stacked: ``(draws * len(indices), q)``."""
        return np.concatenate([self.draw(k)[indices] for k in range(draws)])

    @property
    def queries(self) -> int:
        """Releases of auxiliary records used so far (principal axes are fitted on all of them)."""
        draws = self.draws if self._map.projected else max(1, len(self._used))
        return draws * self._map.records * self._map.releases_per_record


class LastDraw:
    """The auxiliary draw asked for last, kept: a view may make a draw anew at every call.

    Networks on maps take one draw an epoch, in many batches; keeping all of them could be gigabytes.
    """

    def __init__(self, aux: AuxiliarySet) -> None:
        self._aux = aux
        self._number = 0
        self._array = aux.releases(0)
        self._used = {0}

    def __call__(self, k: int) -> FloatArray:
        """Draw ``k % K``, float32 ``(n, T, *shape)``; read only."""
        k %= self._aux.draws
        if k != self._number:
            self._number, self._array = k, self._aux.releases(k)
            self._used.add(k)
        return self._array

    @property
    def queries(self) -> int:
        """Releases of auxiliary records used so far."""
        return len(self._used) * int(self._array.shape[0]) * int(self._array.shape[1])
