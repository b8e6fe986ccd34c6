"""A codebook: d values become one of K letters, the nearest code's number; fitted, applied, stored.

With ``groups`` a record's values are M blocks of d values, each with a codebook of its own.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from threadpoolctl import threadpool_limits
from torch import Tensor

from privhier.config.network import MOST_LETTERS
from privhier.errors import CheckpointError, ConfigError, DataError
from privhier.seeding import numpy_stream, stream_seed
from privhier.storage.files import whole_file

Fit = Literal["quantiles", "kmeans"]
"""How letters are fitted: medians of equally filled cells (d = 1), or k-means."""
SCHEMA = "privhier.codebook/1"

_MOST_ROWS = 50_000
"""Records that k-means is fitted on, at most: a drawn part of more."""
_RESTARTS, _FEW = 4, 64
"""k-means is begun anew this often for so few letters, and once for more."""
_BLOCK = 2**21
"""Distances held at a time."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Codebook:
    """Values of every letter of every group.

    Letters are ordered: by value where d is 1, else along the first principal axis of the codes. A code that
    could not be told from another one repeats the last of its group and is never the nearest.

    Args:
        values: float32 ``(M, K, d)``, finite, K from 2 to 4,096.

    Raises:
        ConfigError: Something else.
    """

    values: Tensor

    def __post_init__(self) -> None:
        values = self.values
        if values.dtype != torch.float32 or values.ndim != 3 or 0 in values.shape:
            raise _error("codebook", f"{values.dtype} {tuple(values.shape)}", "must be float32 (M, K, d)")
        if not 2 <= self.letters <= MOST_LETTERS:
            raise _error("letters", self.letters, f"must lie from 2 to {MOST_LETTERS}")
        if not bool(values.isfinite().all()):
            raise _error("codebook", "non-finite", "must be finite")

    @property
    def groups(self) -> int:
        """M."""
        return int(self.values.shape[0])

    @property
    def letters(self) -> int:
        """K."""
        return int(self.values.shape[1])

    @property
    def size(self) -> int:
        """Values of a block, d."""
        return int(self.values.shape[2])

    def letters_of(self, z: Tensor) -> Tensor:
        """The nearest letters of features ``(B, M * d)``: int64 ``(B, M)``; of equally near ones the first.

        Raises:
            ConfigError: Features of another width.
        """
        return nearest_letters(z, self.values)

    def values_of(self, letters: Tensor) -> Tensor:
        """Values of letters int64 ``(B, M)``: float32 ``(B, M * d)``."""
        groups = torch.arange(self.groups, device=letters.device)
        return self.values.to(letters.device)[groups, letters].flatten(1)

    def usage(self, z: Tensor) -> list[Usage]:
        """How often each letter stands for one of these features ``(n, M * d)``; one for each group."""
        columns = self.letters_of(z).cpu().numpy().T
        return [usage_of(column, self.letters) for column in columns]


@dataclass(frozen=True)
class Usage:
    """How a group's letters are used.

    Attributes:
        letters: K.
        used: Letters that stand for at least one record.
        entropy: Of the letters' shares, in bits; at most ``log2 K``.
        largest: Share of the most frequent letter, in (0, 1].
    """

    letters: int
    used: int
    entropy: float
    largest: float

    @property
    def share(self) -> float:
        """Share of the letters that are used, in (0, 1]."""
        return self.used / self.letters

    @property
    def collapsed(self) -> bool:
        """Whether less than half the letters are used."""
        return 2 * self.used < self.letters


def usage_of(letters: npt.NDArray[np.int64], count: int) -> Usage:
    """Usage of ``count`` letters in int64 ``(n,)``.

    Raises:
        DataError: There is no record.
    """
    if letters.size == 0:
        raise _no_records(0)
    shares = np.bincount(letters, minlength=count) / letters.size
    seen = shares[shares > 0]
    return Usage(count, int(seen.size), float(-(seen * np.log2(seen)).sum()) + 0.0, float(seen.max()))


def nearest_letters(z: Tensor, values: Tensor) -> Tensor:
    """Number of the nearest code of every group, in exact order of float64 distances.

    A record's letters do not depend on the records beside it: distances are added up value by value, not by
    a matrix product.

    Args:
        z: Features ``(B, M * d)``, any float type.
        values: Codes ``(M, K, d)``.

    Returns:
        int64 ``(B, M)``; of equally near codes the first.

    Raises:
        ConfigError: Features of another width.
    """
    groups, count, size = values.shape
    if z.ndim != 2 or z.shape[1] != groups * size:
        raise _error("codebook", tuple(z.shape), f"features must be (B, {groups * size})")
    blocks, codes = z.detach().double().reshape(len(z), groups, size), values.detach().double().to(z.device)
    found = torch.empty(len(z), groups, dtype=torch.int64, device=z.device)
    rows = max(1, _BLOCK // count)
    for start in range(0, len(z), rows):
        for group in range(groups):
            part = blocks[start : start + rows, group]
            distance = torch.zeros(len(part), count, dtype=torch.float64, device=z.device)
            for column in range(size):
                distance += (part[:, column, None] - codes[group, :, column]).square()
            found[start : start + rows, group] = distance.argmin(dim=1)
    return found


def fit_codebook(
    features: Tensor, *, letters: int, groups: int = 1, fit: Fit | None = None, seed: int
) -> Codebook:
    """Fit K letters to features; the same features and seed give the same codes, bit for bit.

    ``quantiles``: the medians of K equally filled cells, for d = 1. ``kmeans``: Lloyd's algorithm from
    k-means++ seeds on one thread, of several starts the best, on at most 50,000 records.

    Args:
        features: Any float type ``(n, M * d)``, finite, of records that the fit may depend on.
        letters: K.
        groups: M.
        fit: None: quantiles where d is 1, else k-means.
        seed: The experiment's seed; the stream is ``codebook``.

    Raises:
        ConfigError: K or M out of range, a width that is no multiple of M, quantiles of several values.
        DataError: No record, or features that are not finite.
    """
    if type(letters) is not int or not 2 <= letters <= MOST_LETTERS:
        raise _error("letters", letters, f"must lie from 2 to {MOST_LETTERS}")
    if features.ndim != 2 or groups < 1 or features.shape[1] == 0 or features.shape[1] % groups:
        shape = tuple(features.shape)
        raise _error("groups", groups, f"must divide the features {shape} of a record into equal blocks")
    if len(features) == 0 or not bool(features.float().isfinite().all()):
        raise _no_records(len(features))
    size = features.shape[1] // groups
    chosen = fit or ("quantiles" if size == 1 else "kmeans")
    if chosen not in get_args(Fit) or (chosen == "quantiles" and size != 1):
        raise _error("fit", chosen, f"must be kmeans for blocks of {size} values (quantiles: of one value)")
    rows = features.detach().cpu().double().numpy().reshape(len(features), groups, size)
    if chosen == "quantiles":
        codes = [_medians(rows[:, group, 0], letters) for group in range(groups)]
    else:
        codes = [_means(rows[:, group], letters, seed, group) for group in range(groups)]
    return Codebook(torch.from_numpy(np.stack([_in_order(group, letters) for group in codes])))


def save_codebook(codebook: Codebook, path: str | Path) -> None:
    """Write a codebook; a crash leaves the old file or the new one."""
    with whole_file(Path(path)) as stream:
        stream.write(codebook_bytes(codebook))


def codebook_bytes(codebook: Codebook) -> bytes:
    """A codebook as the content of a safetensors file: one tensor ``values``, the schema as metadata."""
    return save({"values": codebook.values.detach().cpu().contiguous()}, metadata={"schema": SCHEMA})


def load_codebook(path: str | Path) -> Codebook:
    """Read a codebook back.

    Raises:
        CheckpointError: Missing, damaged, or not a codebook of this schema.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata()
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise _no_codebook(path, f"cannot be read: {error}") from error
    if (metadata or {}).get("schema") != SCHEMA or list(tensors) != ["values"]:
        raise _no_codebook(path, f"is no {SCHEMA} file: it holds {_listed(tensors, metadata)}")
    try:
        return Codebook(tensors["values"])
    except ConfigError as error:
        raise _no_codebook(path, f"holds no codebook: {error.rule}") from error


def _medians(values: FloatArray, letters: int) -> FloatArray:
    """Distinct medians of equally filled cells, ``(at most K, 1)``.

    A value that fills several cells by itself gets one letter; the others share what is left.
    """
    rest = values.astype(np.float32)
    codes = np.zeros(0, dtype=np.float32)
    while len(rest) and len(codes) < letters:
        count = letters - len(codes)
        middles = (np.arange(count) + 0.5) / count
        found, times = np.unique(np.quantile(rest, middles, method="inverted_cdf"), return_counts=True)
        heavy = found[times > 1]
        if len(heavy) == 0:
            codes = np.concatenate([codes, found])
            break
        codes = np.concatenate([codes, heavy])
        rest = rest[~np.isin(rest, heavy)]
    return codes.astype(np.float64)[:, None]


def _means(rows: FloatArray, letters: int, seed: int, group: int) -> FloatArray:
    """Distinct k-means centers, ``(at most K, d)``."""
    from sklearn.cluster import KMeans  # here: a start of every process would wait for it
    from sklearn.exceptions import ConvergenceWarning

    if len(rows) > _MOST_ROWS:
        chosen = numpy_stream(seed, "codebook", group, "rows").choice(len(rows), _MOST_ROWS, replace=False)
        rows = rows[np.sort(chosen)]
    distinct = np.unique(rows, axis=0)
    if len(distinct) <= letters:
        return distinct
    center, spread = rows.mean(axis=0), max(float(rows.std()), np.finfo(np.float64).tiny)
    model = KMeans(
        letters,
        n_init=_RESTARTS if letters <= _FEW else 1,
        random_state=stream_seed(seed, "codebook", group) % 2**32,
    )
    # Threads add up a center's records in any order. Scaled, since stopping looks at squares.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the limit on iterations: any codes will do
        model.fit((rows - center) / spread)
    centers: FloatArray = model.cluster_centers_ * spread + center
    return np.unique(centers.astype(np.float32), axis=0).astype(np.float64)


def _in_order(codes: FloatArray, letters: int) -> npt.NDArray[np.float32]:
    """Codes ``(u, d)`` in the order of their letters, the last one repeated: float32 ``(K, d)``."""
    codes = np.unique(codes.astype(np.float32), axis=0).astype(np.float64)
    if codes.shape[1] > 1 and len(codes) > 1:
        centered = codes - codes.mean(axis=0)
        axis = np.linalg.svd(centered, full_matrices=False)[2][0]
        axis = axis * math.copysign(1, axis[np.abs(axis).argmax()])
        codes = codes[np.argsort(centered @ axis, kind="stable")]
    repeated = np.concatenate([codes, np.repeat(codes[-1:], letters - len(codes), axis=0)])
    return np.ascontiguousarray(repeated, dtype=np.float32)


def _listed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> str:
    return json.dumps({"tensors": sorted(tensors)[:4], "metadata": dict(metadata or {})})[:200]


def _no_codebook(path: Path, rule: str) -> CheckpointError:
    return CheckpointError(key="codebook", value=path.name, rule=rule, remedy="Train this run again")


def _no_records(count: int) -> DataError:
    return DataError(
        key="codebook",
        value=f"{count} records",
        rule="letters are fitted to finite features of at least one record",
        remedy="Lower training.edge.lr if features are not finite, or take more records",
    )


def _error(field: str, value: object, rule: str) -> ConfigError:
    key = f"model.bottleneck.{field}"
    return ConfigError(key=key, value=value, rule=rule, remedy=f"Mend {key}")
