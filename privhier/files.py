"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(
    path: Path, *, sync: bool = True, before: Callable[[Path], None] | None = None
) -> Iterator[BinaryIO]:
    """Write to ``path`` through a temporary file beside it: flushed to disk, then renamed.

    A crash or a power cut leaves the old file or the new one. The folder must exist; ``OSError`` passes
    through.

    Args:
        path: The file.
        sync: Whether to flush; without it a power cut may undo the change, never tear it on file systems
            that order a rename after the data it names.
        before: Called with the finished temporary file just before it is renamed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        if before is not None:
            before(temporary)
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replaced_file(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file in the same folder and give it the name ``path``."""
    handle = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk: a new file's name must survive a power cut as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
