"""The decoded cache: one memory-mapped file of pixels a data set, size and crop, written all or nothing.

A cache is a folder ``NAME-SIZE-KEY`` of four files: ``images.bin`` (uint8, ``(N, 3, H, W)``),
``rows.npy`` (row of the listing behind each picture), ``digests.npy`` (SHA-256 of each file) and
``meta.json``. It is built in a temporary folder and renamed, so a killed process leaves no half cache. The
near-doubles among its pictures come beside them (``near_cache.py``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from privhier.datasets.base import ImageArray, IntArray, Problem
from privhier.datasets.decode import VERSION, decode_files
from privhier.datasets.listing import Listing
from privhier.datasets.near_cache import cached_near_doubles
from privhier.datasets.near_doubles import NO_PAIRS, Pairs
from privhier.datasets.regular import status_of
from privhier.errors import OutputError
from privhier.storage.sealed import file_digest

FORMAT = 2
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a listing that could be decoded.

    Attributes:
        images: uint8 ``(N, 3, H, W)``, read-only.
        rows: int64 ``(N,)``, the row of the listing behind each picture, increasing.
        digests: uint8 ``(N, 32)``, SHA-256 of each file's bytes.
        problems: Pictures that are broken or show no face.
        near: Pairs of rows that look like versions of one photo.
    """

    images: ImageArray
    rows: IntArray
    digests: npt.NDArray[np.uint8]
    problems: tuple[Problem, ...]
    near: Pairs = field(default=NO_PAIRS)


def cache_folder(configured: str | None) -> Path:
    """Where caches live: ``configured``, else ``$PRIVHIER_CACHE``, else ``~/.cache/privhier``."""
    return Path(configured or os.environ.get("PRIVHIER_CACHE") or "~/.cache/privhier").expanduser()


def cached_pictures(
    name: str,
    root: Path,
    listing: Listing,
    *,
    size: int,
    crop: str,
    folder: Path,
    near_doubles: bool = True,
    progress: Progress | None,
) -> Pictures:
    """The pictures of ``listing``, decoded now or by an earlier start.

    Near-doubles among them are found now or then as well, where they are asked for.

    Raises:
        OutputError: The cache folder cannot be written.
        DataError: A picture's bytes cannot be read.
    """
    key = _key(root, listing, size, crop)
    final = folder / f"{name}-{size}-{key[:20]}"
    try:
        pictures = _open(final, size)
        if pictures is None:
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / f".{final.name}.lock"):
                pictures = _open(final, size)  # another process may have built it while this one waited
                if pictures is None:
                    _build(final, root, listing, size, crop, progress)
                    pictures = _open(final, size)
        if pictures is not None and near_doubles:
            near = cached_near_doubles(pictures.images, pictures.digests, final, progress)
            pictures = replace(pictures, near=near)
    except OSError as error:
        raise OutputError(
            key="dataset.cache",
            value=str(folder),
            rule=f"the decoded cache cannot be written or read: {error.strerror or error}",
            remedy="Set dataset.cache or PRIVHIER_CACHE to a folder that can be written and has room",
        ) from error
    if pictures is None:
        raise OutputError(
            key="dataset.cache",
            value=str(final),
            rule="the cache was changed while it was read",
            remedy="Remove that folder and start again",
        )
    return pictures


def _key(root: Path, listing: Listing, size: int, crop: str) -> str:
    base = root.resolve()
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {size} {crop} {base}\n".encode(errors="surrogateescape"))
    for path in listing.paths:
        status = status_of(base / path)
        # A link to nothing, or a FIFO in a picture's place, is reported when it is decoded.
        state = "gone" if status is None else f"{status.st_size}\0{status.st_mtime_ns}"
        digest.update(f"{path}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    # The kernel frees the lock of a killed process, so it can never be left behind.
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(
    final: Path, root: Path, listing: Listing, size: int, crop: str, progress: Progress | None
) -> None:
    # Under the lock, a temporary folder of this key, or a cache that _open refused, can only be debris.
    for debris in [*final.parent.glob(f".{final.name}.tmp-*"), final]:
        if debris.exists():
            shutil.rmtree(debris)
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}.tmp-", dir=final.parent))
    try:
        rows: list[int] = []
        digests: list[bytes] = []
        problems: list[Problem] = []
        done, total = 0, len(listing)
        # Plain appends, not a writable map: the pages are the kernel's cache, not this process's memory.
        written = hashlib.sha256()
        with (work / "images.bin").open("wb") as pixels:
            for chunk in decode_files(root, listing.paths, size=size, crop=crop):
                data = chunk.images.tobytes()
                pixels.write(data)
                written.update(data)
                rows += chunk.rows
                digests += chunk.digests
                problems += chunk.problems
                done += chunk.done
                if progress is not None:
                    progress("decode", done, total)
            pixels.flush()
            os.fsync(pixels.fileno())
        np.save(work / "rows.npy", np.array(rows, dtype=np.int64))
        np.save(work / "digests.npy", np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32))
        meta = {
            "format": FORMAT,
            "count": len(rows),
            "problems": [[problem.where, problem.reason] for problem in problems],
            "images.bin": written.hexdigest(),
            "rows.npy": file_digest(work / "rows.npy"),
            "digests.npy": file_digest(work / "digests.npy"),
        }
        (work / "meta.json").write_text(json.dumps(meta | {"meta": _digest_of(meta)}), encoding="utf-8")
        work.rename(final)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _open(folder: Path, size: int) -> Pictures | None:
    """The finished cache in ``folder``; None where there is none, or a file is not what was written.

    A damaged cache is decoded anew: every byte is held against its digest at every start.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta.pop("meta", None) != _digest_of(meta):
            return None
        if any(
            file_digest(folder / name) != meta[name] for name in ("images.bin", "rows.npy", "digests.npy")
        ):
            return None
        shape = (int(meta["count"]), 3, size, size)
        rows: IntArray = np.load(folder / "rows.npy")
        digests: npt.NDArray[np.uint8] = np.load(folder / "digests.npy")
        whole = (folder / "images.bin").stat().st_size == int(np.prod(shape))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    if meta.get("format") != FORMAT or not whole or not len(rows) == len(digests) == shape[0]:
        return None
    images: ImageArray = np.zeros(shape, dtype=np.uint8)  # an empty file cannot be mapped
    if shape[0]:
        images = np.memmap(folder / "images.bin", dtype=np.uint8, mode="r", shape=shape)
    return Pictures(
        images, rows, digests, tuple(Problem(where, reason) for where, reason in meta["problems"])
    )


def _digest_of(meta: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
