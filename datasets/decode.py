"""From files to pixels, in one reading pass: every file is read once, hashed and decoded."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL import __version__ as pillow_version

from privhier.datasets.base import ImageArray, Problem
from privhier.datasets.crop import FaceFinder, center_square
from privhier.datasets.formats import READ_FORMATS
from privhier.datasets.pixels import UnreadPictureError, depth_of, to_rgb
from privhier.datasets.regular import read_regular, status_of

VERSION = f"3/pillow-{pillow_version}"
"""Part of every cache key: raise the number when the same file would give other pixels."""

CHUNK = 64
MOST_PIXELS = 50_000_000
"""Pixels that are decoded of one file, by its header. JPEG decodes at 1/2, 1/4 or 1/8 where less is kept."""

LARGE_PIXELS, LARGE_BYTES = 4_000_000, 16 * 2**20
"""Pictures above either are decoded one at a time, by one thread, so that memory is bounded by one of
``MOST_PIXELS`` and one of ``LARGE_PIXELS`` a worker. A lock would not do: the C library keeps for each thread
what that thread has freed."""

BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
)
"""What Pillow's decoders raise on a file that is not a whole picture, as far as seen on damaged files."""


@dataclass(frozen=True)
class Decoded:
    """Consecutive rows of a listing, decoded.

    Attributes:
        done: How many rows these are, broken pictures included.
        rows: Row numbers of the pictures that could be decoded.
        images: uint8 ``(len(rows), 3, size, size)``.
        digests: SHA-256 of each file's bytes, in the order of ``rows``.
        problems: Broken pictures (skipped), and faces not found (kept, cropped at the centre).
    """

    done: int
    rows: list[int]
    images: ImageArray
    digests: list[bytes]
    problems: list[Problem]


def decode_picture(
    data: bytes, size: int, finder: FaceFinder | None, large: Executor | None = None
) -> tuple[ImageArray, bool]:
    """Decode one file to uint8 ``(3, size, size)`` RGB, upright, square, antialiased bilinear.

    Of an animation the first frame is taken; the orientation that a camera noted is applied. How modes
    become RGB is ``pixels.to_rgb``'s. Pictures above ``LARGE_PIXELS`` are decoded by ``large``, if given.

    Returns the pixels, and whether ``finder`` (if any) found a face.

    Raises:
        UnreadPictureError: Not a whole picture of ``formats.READ_FORMATS``, more than ``MOST_PIXELS``, or
            values of no known scale.
    """
    with _damage_named():
        picture = _opened(data, size if finder is None else None)
    if large is not None and picture.width * picture.height > LARGE_PIXELS:
        return large.submit(_square, picture, size, finder).result()
    return _square(picture, size, finder)


def _opened(data: bytes, least: int | None) -> Image.Image:
    """The picture, its header read; with ``least`` it may be reduced, to that many pixels a side or more."""
    picture = Image.open(io.BytesIO(data), formats=READ_FORMATS)
    pixels = picture.width * picture.height
    if least is not None:
        # JPEG can decode at 1/2, 1/4 or 1/8; the result is never smaller than asked for.
        picture.draft("RGB", (least, least))
        if not picture.info.get("progressive"):  # all its coefficients are held at whatever scale
            pixels = picture.width * picture.height
    if pixels > MOST_PIXELS:
        raise UnreadPictureError(f"too large: {pixels:,} pixels to decode, at most {MOST_PIXELS:,}")
    return picture


def _square(picture: Image.Image, size: int, finder: FaceFinder | None) -> tuple[ImageArray, bool]:
    with _damage_named():
        depth = depth_of(picture)
        ImageOps.exif_transpose(picture, in_place=True)
        upright = to_rgb(picture, depth)
    box = None if finder is None else finder.find(upright)
    square = center_square(*upright.size) if box is None else box
    small = upright.resize((size, size), Image.Resampling.BILINEAR, box=square)
    pixels = np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)
    return pixels, finder is None or box is not None


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except UnreadPictureError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadPictureError(f"too large: {_reason(error)}") from error
    except BROKEN as error:
        raise UnreadPictureError(f"broken image: {_reason(error)}") from error


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
        return _decode_chunk(root, paths[start : start + CHUNK], start, size, finder, large)

    with warnings.catch_warnings():
        # Warning filters belong to the process, not to threads: set once here, for all workers.
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        large = ThreadPoolExecutor(1, thread_name_prefix="decode-large")
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
            large.shutdown(cancel_futures=True)


def _decode_chunk(
    root: Path, paths: Sequence[str], start: int, size: int, finder: FaceFinder | None, large: Executor
) -> Decoded:
    rows: list[int] = []
    images: list[ImageArray] = []
    digests: list[bytes] = []
    problems: list[Problem] = []
    for row, path in enumerate(paths, start):
        try:
            digest, pixels, found = _one(root / path, size, finder, large)
        except UnreadPictureError as error:
            problems.append(Problem(path, str(error)))
            continue
        if not found:
            problems.append(Problem(path, "no face found: kept, cropped at the centre"))
        rows.append(row)
        images.append(pixels)
        digests.append(digest)
    stacked = np.stack(images) if images else np.zeros((0, 3, size, size), dtype=np.uint8)
    return Decoded(len(paths), rows, stacked, digests, problems)


def _one(
    path: Path, size: int, finder: FaceFinder | None, large: Executor | None
) -> tuple[bytes, ImageArray, bool]:
    status = status_of(path)
    if large is not None and status is not None and status.st_size > LARGE_BYTES:
        return large.submit(_one, path, size, finder, None).result()
    data = read_regular(path)
    pixels, found = decode_picture(data, size, finder, large)
    return hashlib.sha256(data).digest(), pixels, found


def _reason(error: BaseException) -> str:
    # Pillow names the memory buffer in its message, which changes from run to run.
    return "not a picture" if "cannot identify" in str(error) else (str(error) or type(error).__name__)
