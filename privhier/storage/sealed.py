"""Folders whose files are bound by digests: what was edited, damaged or swapped is refused, not believed.

``digests.json`` holds the SHA-256 of every file that is ever read again, and what the folder belongs to (its
configuration, its data). It is written before the file it speaks of, and for that moment holds the old digest
beside the new one: a kill at any time leaves a folder that can be gone on with. It guards against damage and
against edits, not against somebody who makes up a whole new folder; what a ledger must hold is therefore also
checked against the configuration (``privhier.training.charges``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from privhier.errors import CheckpointError, OutputError
from privhier.storage.files import replaced_file, whole_file

NAME = "digests.json"
SCHEMA = "privhier.digests/1"
_ABSENT = "absent"
"""Stands for the digest of a file that is about to be written for the first time."""
_DIGEST = re.compile(rf"[0-9a-f]{{64}}|{_ABSENT}")
_REMEDY = "Restore it from a copy, or start anew in another folder: nothing is concluded from an altered one"


class Sealed:
    """A folder with its digests. It keeps no state of its own: several objects and processes may share one.

    Args:
        root: The folder.

    Raises:
        CheckpointError: By every reader: the file is missing, not listed or not what was written.
        OutputError: By every writer: the disk is full or read-only.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def path(self) -> Path:
        """Where the digests are."""
        return self.root / NAME

    def bind(self, **facts: str) -> None:
        """Say what the folder belongs to (``config=``, ``data=``); a second, other answer is refused.

        Raises:
            CheckpointError: The folder was bound to something else before.
        """
        with self._changing() as listing:
            for name, value in facts.items():
                before = listing["bound"].setdefault(name, value)
                if before != value:
                    raise _other(name, value, before)

    def match(self, name: str, value: str) -> None:
        """Refuse what the folder does not belong to; see ``bind``."""
        before = self.bound(name)
        if before != value:
            raise _other(name, value, before)

    def bound(self, name: str) -> str | None:
        """What the folder was bound to under this name."""
        found: str | None = self._listing()["bound"].get(name)
        return found

    def lists(self, path: Path) -> bool:
        """Whether a file of that name was written here and must be there."""
        return _ABSENT not in self._listing()["files"].get(self._key(path), [_ABSENT])

    def knows(self, path: Path) -> bool:
        """Whether a file is there, or was written and must be: what has gone is missed, not made again."""
        return path.exists() or self.lists(path)

    def contents(self) -> tuple[dict[str, str], list[str]]:
        """What the folder belongs to, and the names of the files that were written here and are there."""
        listing = self._listing()
        written = (name for name, digests in listing["files"].items() if _ABSENT not in digests)
        return dict(listing["bound"]), [name for name in sorted(written) if (self.root / name).is_file()]

    @contextmanager
    def writing(self, path: Path) -> Iterator[BinaryIO]:
        """Write a file whole or not at all, and its digest with it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(
                path, before=lambda temporary: self.expect(path, file_digest(temporary))
            ) as stream:
                yield stream
        except OSError as error:
            raise _unwritable(path, error) from error
        self.settle(path)

    def write(self, path: Path, data: str | bytes) -> None:
        """Write text or bytes."""
        with self.writing(path) as stream:
            stream.write(data.encode() if isinstance(data, str) else data)

    def write_json(self, path: Path, data: Any) -> None:
        """Write plain data as JSON."""
        self.write(path, json.dumps(data, indent=2, allow_nan=False) + "\n")

    def write_array(self, path: Path, array: npt.NDArray[Any]) -> None:
        """Write an array as ``.npy``."""
        with self.writing(path) as stream:
            np.save(stream, array)

    def adopt(self, temporary: Path, path: Path) -> None:
        """Give a finished temporary file beside it the name ``path``."""
        try:
            self.expect(path, file_digest(temporary))
            replaced_file(temporary, path)
        except OSError as error:
            raise _unwritable(path, error) from error
        self.settle(path)

    def expect(self, path: Path, digest: str) -> None:
        """Allow ``path`` to become something else; it may stay what it is until ``settle``."""
        key = self._key(path)
        with self._changing() as listing:
            before = listing["files"].get(key, [_ABSENT])
            if len(before) > 1:  # a crash came between: only what is there now may stay
                now = file_digest(path) if path.is_file() else _ABSENT
                before = [one for one in before if one == now]
            listing["files"][key] = [one for one in before if one != digest] + [digest]

    def settle(self, path: Path) -> None:
        """Allow ``path`` to be what it was last expected to become, and nothing else."""
        with self._changing(sync=False) as listing:
            listing["files"][self._key(path)] = listing["files"][self._key(path)][-1:]

    def checked(self, path: Path) -> Path:
        """``path`` itself, once it was found to be what was written."""
        self.check_digest(path, self._digest_of(path))
        return path

    def allows(self, path: Path, digest: str) -> bool:
        """Whether a file of this digest was written under the name ``path``."""
        return digest in self._listing()["files"].get(self._key(path), [])

    def check_digest(self, path: Path, digest: str) -> None:
        """Refuse ``path`` unless a file of this digest was written under its name."""
        allowed = self._listing()["files"].get(self._key(path))
        if allowed is None:
            raise altered(path, f"is not in {NAME}: it was put there by something else")
        if digest not in allowed:
            raise altered(path, "is not what was written: it was edited or damaged since")

    def read(self, path: Path) -> bytes:
        """A file's bytes."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        self.check_digest(path, hashlib.sha256(data).hexdigest())
        return data

    def read_json(self, path: Path) -> Any:
        """Plain data of a JSON file."""
        return parsed_json(path, self.read(path))

    def read_array(self, path: Path, *, mmap: bool = False) -> npt.NDArray[Any]:
        """An array of a ``.npy`` file; ``mmap``: as a read-only memory map."""
        return loaded_array(self.checked(path), mmap=mmap)

    def require(self) -> None:
        """Refuse a folder without digests.

        Raises:
            CheckpointError: There is no readable ``digests.json``.
        """
        if not self.path.is_file():
            raise CheckpointError(
                key="RUN",
                value=str(self.root),
                rule=f"has no {NAME}: it was removed, or an older version wrote the folder",
                remedy="Run it again: without digests nothing says that these files belong together",
            )
        self._listing()

    def _digest_of(self, path: Path) -> str:
        try:
            return file_digest(path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _listing(self) -> dict[str, Any]:
        if not self.path.exists():
            return {"schema": SCHEMA, "bound": {}, "files": {}}
        data = read_json(self.path)
        if not _is_listing(data):
            raise altered(self.path, f"is not a {SCHEMA} file")
        return dict(data)

    @contextmanager
    def _changing(self, *, sync: bool = True) -> Iterator[dict[str, Any]]:
        """The listing, to be changed in the block; processes take turns, nothing is written if it raises."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            listing = self._listing()
            before = json.dumps(listing)
            yield listing
            if json.dumps(listing) != before or not self.path.exists():
                try:
                    with whole_file(self.path, sync=sync) as stream:
                        stream.write((json.dumps(listing, indent=1, sort_keys=True) + "\n").encode())
                except OSError as error:
                    raise _unwritable(self.path, error) from error
        finally:
            os.close(handle)


_BINDINGS = {
    "data": "Point dataset.root at the images this run began with: other images under one ledger would be "
    "released without a charge",
    "config": "Resume with the run's own configuration, or choose another --out",
}


def _other(name: str, value: str, before: str | None) -> CheckpointError:
    words = {"config": "configuration", "data": "data set"}.get(name, name)
    return CheckpointError(
        key=f"{NAME}: {name}",
        value=value[:16],
        rule=f"this folder belongs to {f'another {words} ({before[:16]})' if before else f'no {words}'}",
        remedy=_BINDINGS.get(name, _REMEDY),
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; ``OSError`` passes through."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Plain data of a JSON file that no digest guards.

    Raises:
        CheckpointError: Missing, unreadable or not JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return parsed_json(path, data)


def parsed_json(path: Path, data: bytes) -> Any:
    """What ``data``, the content of ``path``, says; NaN and infinity are no JSON.

    Raises:
        CheckpointError: Not JSON.
    """
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise altered(path, f"is not JSON: {error}") from error


def loaded_array(path: Path, *, mmap: bool = False) -> npt.NDArray[Any]:
    """An array of a ``.npy`` file that no digest guards, or whose digest was checked; never unpickled.

    Raises:
        CheckpointError: Missing, unreadable or no array.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise altered(path, f"is not an array: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise altered(path, "is an archive, not an array")
    return array


def altered(path: Path, rule: str, remedy: str = _REMEDY) -> CheckpointError:
    """The error of every file that is not what was written."""
    return CheckpointError(key=path.name, value=str(path), rule=rule, remedy=remedy)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    gone = isinstance(error, FileNotFoundError)
    return altered(path, "is missing" if gone else f"cannot be read: {error.strerror or error}")


def _is_listing(data: Any) -> bool:
    if not (
        isinstance(data, dict) and set(data) == {"schema", "bound", "files"} and data["schema"] == SCHEMA
    ):
        return False
    bound, files = data["bound"], data["files"]
    return (
        isinstance(bound, dict)
        and all(isinstance(value, str) for value in bound.values())
        and isinstance(files, dict)
        and all(
            isinstance(digests, list)
            and 0 < len(digests) <= 2
            and all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests)
            for digests in files.values()
        )
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        key="--out",
        value=str(path),
        rule=f"cannot be written: {error.strerror or error}",
        remedy="Free space or choose another --out",
    )
