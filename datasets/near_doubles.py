"""Pairs of pictures that show one photo in two versions: re-encoded, resized, cropped, padded or mirrored.

First a search by a perceptual hash of 32 numbers (whitened principal components of an 8 x 8 thumbnail), in
which pictures of different faces are all but orthogonal; then the gradients of each pair found are compared
where both fit best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from privhier.datasets.base import ImageArray, IntArray
from privhier.datasets.windows import (
    CHUNK,
    WINDOWS,
    FloatArray,
    gradients_through,
    gray_copies,
    neighbors,
    seen_through,
)
from privhier.seeding import numpy_stream

VERSION = 1
"""Raise it when other pairs would be found."""

HASH_SIDE, HASH_LENGTH, HASH_LEAST = 8, 32, 0.85
LEAST, LEAST_WHOLE = 0.95, 0.965
"""Correlation of gradients from which two pictures are near-doubles, and the same where one shows nearly all
of the other. Measured on LFW: the five pairs of different people above 0.95 were one photo under two names,
the next had 0.926; 99 of 100 planted versions had 0.964 where not padded, and 0.958 where padded."""
FLAT = 4.0
"""Standard deviation in gray levels below which a window shows nothing to be recognized by."""

PRIOR = 200
"""So many pictures' worth of natural-image statistics steady the components of small data sets."""

CELLS, MOST = 4, 16
"""Cells of the index that are searched for each window, and pictures kept of each, the most alike."""

HELD = 2_000_000
"""Pairs held before they are thinned out (56 MB of them): pictures that are all much alike have millions."""

LONG = 2000
"""So many pictures take more than a moment."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pairs:
    """Near-doubles.

    Attributes:
        rows: int64 ``(M, 2)``, the smaller row first, sorted; no pair twice.
        likeness: float32 ``(M,)``, the correlation of their gradients where they fit best.
    """

    rows: IntArray
    likeness: FloatArray


NO_PAIRS = Pairs(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32))


def find_near_doubles(images: ImageArray) -> Pairs:
    """Pairs of ``images`` (uint8 ``(N, 3, H, H)``) that look like versions of one photo."""
    return compare_copies(gray_copies(images), None)


def compare_copies(copies: ImageArray, progress: Progress | None) -> Pairs:
    """The same, of their gray copies.

    ``progress`` is called as ``progress("compare", done, total)`` where there is much to compare.
    """
    whole, contrast = seen_through(copies, WINDOWS[0], HASH_SIDE)
    usable = np.flatnonzero(contrast >= FLAT)
    if len(usable) < 2:
        return NO_PAIRS
    copies = copies[usable]
    hashed = _hash_of(whole[usable])
    index = _Index(whole[usable], hashed(whole[usable]))
    found: list[tuple[IntArray, FloatArray]] = []
    for number, window in enumerate(WINDOWS):
        if progress is not None and len(usable) >= LONG:
            progress("compare", number, len(WINDOWS))
        seen, contrast = seen_through(copies, window, HASH_SIDE)
        pairs, likeness = index.near(seen, hashed(seen))
        kept = (pairs[:, 0] != pairs[:, 1]) & (contrast[pairs[:, 0]] >= FLAT)
        found.append((np.insert(pairs[kept], 2, number, axis=1), likeness[kept]))
        if sum(len(x) for _, x in found) > HELD:
            found = [_best_of_each(*_together(found))]
    candidates, _ = _best_of_each(*_together(found))
    likeness = _aligned(copies, candidates)
    nearly_whole = np.array([window.zoom > 0.9 for window in WINDOWS])
    kept = likeness >= np.where(nearly_whole[candidates[:, 2]], LEAST_WHOLE, LEAST)
    rows = np.sort(usable[candidates[kept, :2]], axis=1)
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return Pairs(rows[order], likeness[kept][order])


def _hash_of(whole: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """The hash fitted to thumbnails ``(N, d)``: whitened principal components, of length 1.

    The covariance is shrunk towards that of natural images, whose power falls with the square of the
    frequency (Field, 1987), so that it does not depend on a few pictures where there are only a few.
    """
    frequency = np.arange(HASH_SIDE)
    power = 1.0 / np.maximum(np.add.outer(frequency**2, frequency**2).reshape(-1), 1)
    power[0] = 0.0
    cosines = dct(np.eye(HASH_SIDE), axis=0, norm="ortho")
    basis = np.kron(cosines, cosines)
    prior = (basis.T * (power / power.sum())) @ basis
    weight = len(whole) / (len(whole) + PRIOR)
    mean = weight * whole.mean(axis=0, dtype=np.float64)
    centered = whole - mean
    spread = weight * (centered.T @ centered) / len(whole) + (1 - weight) * prior
    values, vectors = np.linalg.eigh(spread)
    components = (vectors[:, -HASH_LENGTH:] / np.sqrt(values[-HASH_LENGTH:])).astype(np.float32)

    def hashed(seen: FloatArray) -> FloatArray:
        out: FloatArray = (seen - mean.astype(np.float32)) @ components
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
        return out

    return hashed


class _Index:
    """Hashes in cells around some of the thumbnails; a window is compared with its nearest cells alone."""

    def __init__(self, whole: FloatArray, hashes: FloatArray) -> None:
        count = max(1, round(len(whole) ** 0.5)) if len(whole) > CELLS**2 else 1
        chosen = numpy_stream(0, "near-doubles").choice(len(whole), count, replace=False)
        self._centers = whole[chosen]
        self._hashes = hashes
        cell = np.concatenate([(part @ self._centers.T).argmax(axis=1) for part in _parts(whole)])
        order = np.argsort(cell, kind="stable")
        self._members = np.split(order, np.searchsorted(cell[order], np.arange(1, count)))

    def near(self, seen: FloatArray, hashes: FloatArray) -> tuple[IntArray, FloatArray]:
        """Pairs (row of ``seen``, row of the index) of hashes that are alike, and how alike."""
        probes = min(CELLS, len(self._centers))
        cells = np.concatenate(
            [
                np.argpartition(-(part @ self._centers.T), probes - 1, axis=1)[:, :probes]
                for part in _parts(seen)
            ]
        ).reshape(-1)
        order = np.argsort(cells, kind="stable")
        starts = np.searchsorted(cells[order], np.arange(len(self._members) + 1))
        found: Found = [(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32))]
        held = 0
        for cell, members in enumerate(self._members):
            queries = order[starts[cell] : starts[cell + 1]] // probes
            for part in _parts(queries):
                alike = hashes[part] @ self._hashes[members].T
                hits = np.nonzero(alike >= HASH_LEAST)
                found.append((np.stack([part[hits[0]], members[hits[1]]], axis=1), alike[hits]))
                held += len(found[-1][1])
                if held > HELD:
                    # Of some cells' most alike, the most alike are those of all.
                    found = [_most_alike(*_together(found))]
                    held = 0  # what was kept is bounded by MOST a picture
        return _most_alike(*_together(found))


Found = list[tuple[IntArray, FloatArray]]


def _together(found: Found) -> tuple[IntArray, FloatArray]:
    return np.concatenate([rows for rows, _ in found]), np.concatenate([alike for _, alike in found])


def _parts(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (array[start : start + CHUNK] for start in range(0, len(array), CHUNK))


def _most_alike(pairs: IntArray, likeness: FloatArray) -> tuple[IntArray, FloatArray]:
    # A thousand versions of one photo are tied together by a few pairs each; all pairs would be a million.
    order = np.lexsort((pairs[:, 1], -likeness, pairs[:, 0]))
    pairs, likeness = pairs[order], likeness[order]
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    kept = rank <= MOST  # one of them may be the picture itself
    return pairs[kept], likeness[kept]


def _best_of_each(found: IntArray, likeness: FloatArray) -> tuple[IntArray, FloatArray]:
    """``(M, 3)``: inner row, outer row, window: each unordered pair once, as it was most alike; how alike."""
    low, high = found[:, :2].min(axis=1), found[:, :2].max(axis=1)
    order = np.lexsort((found[:, 2], found[:, 0], -likeness, high, low))
    found, low, high = found[order], low[order], high[order]
    first = np.ones(len(found), dtype=bool)
    first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return found[first], likeness[order][first]


def _aligned(copies: ImageArray, candidates: IntArray) -> FloatArray:
    """How alike each candidate's pictures are where they fit best, around the window that found them."""
    likeness = np.full(len(candidates), -1.0, dtype=np.float32)
    for number, window in enumerate(WINDOWS):
        rows = np.flatnonzero(candidates[:, 2] == number)
        for part in _parts(rows):
            outer = gradients_through(copies[candidates[part, 1]], WINDOWS[0])
            inner = copies[candidates[part, 0]]
            for near in neighbors(window):
                seen = gradients_through(inner, near)
                likeness[part] = np.maximum(likeness[part], np.einsum("nd,nd->n", seen, outer))
    return likeness
