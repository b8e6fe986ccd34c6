"""Reading one file that may be anything: only regular files are opened, and none without a bound."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from privhier.datasets.pixels import UnreadPictureError
from privhier.errors import DataError

MOST_BYTES = 256 * 2**20
"""A picture of ``decode.MOST_PIXELS`` fits, uncompressed and with five bytes a pixel."""

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def status_of(path: Path) -> os.stat_result | None:
    """The status of what ``path`` leads to; None where its links lead nowhere, or in a circle.

    Raises:
        DataError: It cannot be known (permissions, a failing disk).
    """
    try:
        return path.stat()
    except OSError as error:
        if error.errno in GONE:
            return None
        raise _unreadable(path, error) from error


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file.

    Raises:
        UnreadPictureError: A link to nothing, not a regular file, empty, or larger than ``MOST_BYTES``.
        DataError: A file that is there but cannot be read (permissions, a failing disk). It is not
            skipped, because the cache would remember a fault that is not the picture's.
    """
    # Opening alone can hang (a FIFO) or act (a tape drive): look first, and look again at what was opened.
    _require_regular(status_of(path))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            _require_regular(os.fstat(handle))
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        if error.errno in GONE:
            _require_regular(None)
        raise _unreadable(path, error) from error
    if not data:
        raise UnreadPictureError("broken image: an empty file")
    if len(data) > MOST_BYTES:
        raise UnreadPictureError(f"too large: more than {MOST_BYTES:,} bytes")
    return data


def kind_of(status: os.stat_result) -> str | None:
    """What stands in a picture's place, in words; None for a regular file."""
    mode = stat.S_IFMT(status.st_mode)
    return None if mode == stat.S_IFREG else _KINDS.get(mode, "something else")


def _require_regular(status: os.stat_result | None) -> None:
    if status is None:
        raise UnreadPictureError("broken image: a link to nothing")
    kind = kind_of(status)
    if kind is not None:
        raise UnreadPictureError(f"not a regular file: {kind}")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        key="dataset.root",
        value=str(path),
        rule=f"could not be read: {error.strerror}",
        remedy="Mend the file's permissions or its disk, and start again",
    )
