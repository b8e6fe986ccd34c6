"""From files to pixels, in one reading pass: every file is read once, hashed and decoded."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL import __version__ as pillow_version

from privhier.datasets.base import ImageArray, Problem
from privhier.datasets.crop import FaceFinder, center_square
from privhier.errors import DataError

VERSION = f"2/pillow-{pillow_version}"
"""Part of every cache key: raise the number when the same file would give other pixels."""

CHUNK = 64
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on a file that is not a whole picture."""


@dataclass(frozen=True)
class Decoded:
    """Consecutive rows of a listing, decoded.

    Attributes:
        rows: Row numbers of the pictures that could be decoded.
        images: uint8 ``(len(rows), 3, size, size)``.
        digests: SHA-256 of each file's bytes, in the order of ``rows``.
        problems: Broken pictures (skipped), and faces not found (kept, cropped at the centre).
    """

    rows: list[int]
    images: ImageArray
    digests: list[bytes]
    problems: list[Problem]


def decode_picture(data: bytes, size: int, finder: FaceFinder | None) -> tuple[ImageArray, bool]:
    """Decode one file to uint8 ``(3, size, size)`` RGB, upright, square, antialiased bilinear.

    Returns the pixels, and whether ``finder`` (if any) found a face.

    Raises:
        One of ``BROKEN``: the bytes are not a whole picture.
    """
    with Image.open(io.BytesIO(data)) as picture:
        if finder is None:
            # JPEG can decode at 1/2, 1/4 or 1/8; the result is never smaller than asked for.
            picture.draft("RGB", (size, size))
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    box = None if finder is None else finder.find(upright)
    square = center_square(*upright.size) if box is None else box
    small = upright.resize((size, size), Image.Resampling.BILINEAR, box=square)
    pixels = np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)
    return pixels, finder is None or box is not None


def decode_files(root: Path, paths: Sequence[str], *, size: int, crop: str) -> Iterator[Decoded]:
    """Decode ``root/path`` for all paths, in order, on all cores; a few chunks are in memory at a time.

    Raises:
        DataError: A file that is there but cannot be read (permissions, a failing disk). It is not
            skipped, because the cache would remember a fault that is not the picture's.
    """
    finder = FaceFinder() if crop == "mtcnn" else None
    # MTCNN runs on torch's own threads; decoding alone scales with threads, as Pillow frees the lock.
    workers = 1 if finder else max(2, min(8, len(os.sched_getaffinity(0))))

    def work(start: int) -> Decoded:
        return _decode_chunk(root, paths[start : start + CHUNK], start, size, finder)

    with warnings.catch_warnings():
        # Warning filters belong to the process, not to threads: set once here, for all workers.
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            pending: deque[Future[Decoded]] = deque()
            for start in range(0, len(paths), CHUNK):
                pending.append(pool.submit(work, start))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _decode_chunk(
    root: Path, paths: Sequence[str], start: int, size: int, finder: FaceFinder | None
) -> Decoded:
    rows: list[int] = []
    images: list[ImageArray] = []
    digests: list[bytes] = []
    problems: list[Problem] = []
    for row, path in enumerate(paths, start):
        data = _read(root / path)
        if data is None:
            problems.append(Problem(path, "broken image: a link to nothing"))
            continue
        try:
            pixels, found = decode_picture(data, size, finder)
        except BROKEN as error:
            problems.append(Problem(path, f"broken image: {_reason(error)}"))
            continue
        if not found:
            problems.append(Problem(path, "no face found: kept, cropped at the centre"))
        rows.append(row)
        images.append(pixels)
        digests.append(hashlib.sha256(data).digest())
    stacked = np.stack(images) if images else np.zeros((0, 3, size, size), dtype=np.uint8)
    return Decoded(rows, stacked, digests, problems)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            key="dataset.root",
            value=str(path),
            rule=f"could not be read: {error.strerror}",
            remedy="Mend the file's permissions or its disk, and start again",
        ) from error


def _reason(error: Exception) -> str:
    # Pillow names the memory buffer in its message, which changes from run to run.
    return "not a picture" if "cannot identify" in str(error) else (str(error) or type(error).__name__)
