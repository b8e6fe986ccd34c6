"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from privhier.errors import OutputError


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


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write through a temporary file, flush to disk and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise OutputError(
            key="--out",
            value=str(path),
            rule=f"cannot be written: {error}",
            remedy="Free space or choose another --out",
        ) from error


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, atomically."""
    write_atomic(path, json.dumps(data, indent=2, allow_nan=False) + "\n")
