"""Releases that arrived once and are trained on many times: on disk, complete or absent, under digests."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import CheckpointError, OutputError, UplinkError
from privhier.files import whole_file

_BLOCK = 2**20


class ReleaseCache:
    """Releases that arrived once.

    Rows are in order of arrival. The files appear under their names only when every record is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked = False

    @property
    def complete(self) -> bool:
        """Whether every release has arrived."""
        return (self.folder / "records.npy").exists()

    def begin(self, total: int, shape: Sequence[int], tasks: int) -> CacheWriter:
        """Start to fill it, from nothing, with ``total`` releases of ``shape``."""
        self._checked = False
        return CacheWriter(self.folder, total, shape, tasks)

    def load(self) -> tuple[FloatArray, IntArray, IntArray]:
        """Payload ``(n, *shape)`` as a memory map, record numbers ``(n,)``, labels ``(n, n_tasks)``.

        Raises:
            CheckpointError: A file is not what was written; looked at once, when it is first loaded.
        """
        if not self._checked:
            self._check()
            self._checked = True
        payload = np.load(self.folder / "payload.npy", mmap_mode="r")
        return payload, np.load(self.folder / "records.npy"), np.load(self.folder / "labels.npy")

    def _check(self) -> None:
        try:
            digests = json.loads((self.folder / "digests.json").read_bytes())
            names = sorted(digests)
        except (OSError, ValueError, TypeError) as error:
            raise self._damaged("digests.json", f"cannot be read: {error}") from error
        if names != ["labels.npy", "payload.npy", "records.npy"]:
            raise self._damaged("digests.json", f"names {names}")
        for name in names:
            found = hashlib.sha256()
            try:
                with (self.folder / name).open("rb") as stream:
                    while block := stream.read(_BLOCK):
                        found.update(block)
            except OSError as error:
                raise self._damaged(name, f"cannot be read: {error}") from error
            if found.hexdigest() != digests[name]:
                raise self._damaged(name, "is not what was written")

    def _damaged(self, name: str, rule: str) -> CheckpointError:
        return CheckpointError(
            key="cloud_cache",
            value=str(self.folder / name),
            rule=rule,
            remedy="In a cloud's folder: remove cloud_cache/ and checkpoint.pt and --resume, for the journal "
            "holds all of it. Else start the run anew",
        )


class CacheWriter:
    """Fills a cache in order of arrival; nothing is set aside for what was only announced."""

    def __init__(self, folder: Path, total: int, shape: Sequence[int], tasks: int) -> None:
        self._folder, self._total, self._at = folder, total, 0
        self._tasks = tasks
        self._records: list[IntArray] = []
        self._labels: list[IntArray] = []
        self._digest = hashlib.sha256()
        self._temporary = folder / "payload.npy.tmp"
        head = io.BytesIO()
        layout = {"descr": "<f4", "fortran_order": False, "shape": (total, *shape)}
        np.lib.format.write_array_header_1_0(head, layout)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "records.npy").unlink(missing_ok=True)
            self._write("wb", head.getvalue())
        except OSError as error:
            raise self._unwritable(error) from error

    def add(self, payload: FloatArray, records: IntArray, labels: IntArray) -> None:
        """Take ``(B, *shape)`` releases, their record numbers ``(B,)`` and labels ``(B, n_tasks)``.

        Raises:
            UplinkError: More have come than were to come.
            OutputError: The disk is full.
        """
        self._at += len(records)
        if self._at > self._total:
            raise self._miscounted()
        rows = np.ascontiguousarray(payload, dtype="<f4").tobytes()
        try:
            self._write("ab", rows)
        except OSError as error:
            raise self._unwritable(error) from error
        self._records.append(np.array(records, dtype=np.int64))
        self._labels.append(np.array(labels, dtype=np.int64))

    def finish(self) -> None:
        """Flush and rename; ``records.npy`` comes last and makes the cache complete."""
        if self._at != self._total:
            raise self._miscounted()
        files = {
            "labels.npy": _npy(np.concatenate([np.zeros((0, self._tasks), np.int64), *self._labels])),
            "records.npy": _npy(np.concatenate([np.zeros(0, np.int64), *self._records])),
        }
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        digests["payload.npy"] = self._digest.hexdigest()
        try:
            with self._temporary.open("ab") as stream:
                os.fsync(stream.fileno())
            self._temporary.replace(self._folder / "payload.npy")
            parts = {
                "labels.npy": files["labels.npy"],
                "digests.json": json.dumps(digests, indent=2).encode(),
            }
            for name, data in {**parts, "records.npy": files["records.npy"]}.items():
                with whole_file(self._folder / name) as stream:
                    stream.write(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _write(self, mode: Literal["wb", "ab"], data: bytes) -> None:
        with self._temporary.open(mode) as stream:
            stream.write(data)
        self._digest.update(data)

    def _miscounted(self) -> UplinkError:
        return UplinkError(
            key="uplink.records",
            value=self._at,
            rule=f"{self._total} releases were to arrive",
            remedy="Send every record once",
        )

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            key="--out",
            value=str(self._folder),
            rule=f"the cache cannot be written: {error.strerror}",
            remedy="Free space and go on with --resume",
        )


def _npy(array: IntArray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
