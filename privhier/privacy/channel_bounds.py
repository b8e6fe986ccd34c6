"""Public channels on letters: what goes through them, and how much they make any two letters alike.

What is here holds for any channel; randomized response is ``labels.flip_matrix``.
Legend: K letters go in, Y come out, M letters a record, each through the channel with noise of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.errors import ConfigError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_EXACT = 2**26
"""Products up to which the total variation of every two rows is computed."""


def checked_channel(channel: Array, letters: int | None = None) -> FloatArray:
    """The channel as float64 ``(K, Y)`` whose rows sum to 1.

    Args:
        channel: ``(K, Y)``, an array or a tensor; row: the letter of the code, column: the letter that
            leaves the edge. Rows may miss 1 by the rounding of float32 and are scaled.
        letters: K, where it is known.

    Raises:
        ConfigError: It is no channel, or of another alphabet.
    """
    matrix = np.asarray(channel, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise _error("channel", matrix.shape, "must be a matrix (letters, letters that leave)")
    if letters is not None and len(matrix) != letters:
        raise _error(
            "channel", len(matrix), f"must have one row for each of the {letters} letters of the code"
        )
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise _error("channel", "nan, infinite or negative", "must hold probabilities")
    sums = matrix.sum(axis=1)
    if not np.allclose(sums, 1, rtol=0, atol=1e-5):
        raise _error("channel", float(sums[np.abs(sums - 1).argmax()]), "must have rows that sum to 1")
    return np.asarray(matrix / sums[:, None])


def mixed(frequencies: Array, channel: Array, letters_per_record: int = 1) -> FloatArray:
    """Distributions of what leaves the edge, from those of the code's letters: exactly, nothing is drawn.

    Args:
        frequencies: ``(..., K**M)``; the first of M letters counts most (``joint_letters``).
        channel: ``checked_channel``.
        letters_per_record: M.

    Returns:
        ``(..., Y**M)``.
    """
    frequencies = np.asarray(frequencies, dtype=np.float64)
    front, (k, y) = frequencies.shape[:-1], channel.shape
    grid = frequencies.reshape(-1, *[k] * letters_per_record)
    for axis in range(1, letters_per_record + 1):
        grid = np.moveaxis(np.tensordot(grid, channel, axes=(axis, 0)), -1, axis)
    return np.asarray(grid.reshape(*front, y**letters_per_record))


def channel_contraction(channel: Array | None, letters_per_record: int = 1) -> float:
    r"""An upper bound on the total variation between the answers to any two records: in [0, 1].

    For one letter Dobrushin's coefficient :math:`\eta = \max_{ij} TV(W_i, W_j)`; for randomized response
    that is :math:`(e^\epsilon - 1) / (e^\epsilon + K - 1)`. For M letters :math:`1 - (1-\eta)^M`: couple
    every letter's answers as well as can be, then all of them agree with at least that probability. Of
    large alphabets Doeblin's :math:`1 - \sum_y \min_i W_i(y) \ge \eta` is taken, which needs no pairs.

    Args:
        channel: ``checked_channel``; None: the letters leave as they are, 1.
        letters_per_record: M, at least 1.
    """
    if channel is None:
        return 1.0
    if len(channel) ** 2 * channel.shape[1] <= _EXACT:
        eta = max(float(np.abs(channel - row).sum(axis=1).max()) / 2 for row in channel)
    else:
        eta = 1 - float(channel.min(axis=0).sum())
    return min(1.0, max(0.0, 1 - (1 - min(eta, 1.0)) ** letters_per_record))


def joint_letters(letters: Array, n_letters: int) -> npt.NDArray[np.int64]:
    """M letters a record as one letter of the alphabet of ``n_letters ** M``.

    Args:
        letters: integers ``(n, M)`` in [0, n_letters).
        n_letters: K; ``K**M`` must fit int64.

    Returns:
        int64 ``(n,)``; the first column counts most.
    """
    joint = np.zeros(len(letters), dtype=np.int64)
    for column in np.asarray(letters, dtype=np.int64).T:
        joint = joint * n_letters + column
    return joint


def _error(field: str, value: object, rule: str) -> ConfigError:
    return ConfigError(key=f"letters.{field}", value=value, rule=rule, remedy=f"Mend the {field}")
