"""Near-doubles kept beside the decoded pictures, searched once: a file of a SHA-256 and an ``.npz``."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from privhier.datasets.base import ImageArray, IntArray
from privhier.datasets.near_doubles import VERSION, Pairs, Progress, compare_copies
from privhier.datasets.windows import gray_copies


def cached_near_doubles(
    images: ImageArray, digests: npt.NDArray[np.uint8], folder: Path, progress: Progress | None
) -> Pairs:
    """Near-doubles among ``images``, one of each set of identical files compared; found now or earlier.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    file = folder / f"near-{VERSION}"
    pairs = _read(file)
    if pairs is None:
        single: IntArray = np.sort(np.unique(digests, axis=0, return_index=True)[1]).astype(np.int64)
        # The gray copies of all, and not the pictures: these may be larger than memory.
        found = compare_copies(gray_copies(images)[single], progress)
        pairs = Pairs(single[found.rows], found.likeness)
        _write(file, pairs)
    return pairs


def _read(file: Path) -> Pairs | None:
    try:
        with file.open("rb") as stream:
            digest, data = stream.read(32), stream.read()
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).digest() != digest:
        return None  # damaged: searched again
    with np.load(io.BytesIO(data)) as kept:
        return Pairs(kept["rows"], kept["likeness"])


def _write(file: Path, pairs: Pairs) -> None:
    data = io.BytesIO()
    np.savez(data, rows=pairs.rows, likeness=pairs.likeness)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.tmp-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(hashlib.sha256(data.getvalue()).digest() + data.getvalue())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
