"""Releases that arrived once and are trained on many times: on disk, complete or absent, under digests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import OutputError, UplinkError
from privhier.storage.sealed import Sealed, loaded_array


class ReleaseCache:
    """Releases that arrived once.

    Rows are in order of arrival. The files appear under their names only when every record is there.

    Args:
        folder: Where they lie.
        sealed: The run's, or the cloud's, folder around it.
    """

    def __init__(self, folder: Path, sealed: Sealed) -> None:
        self.folder, self._sealed = folder, sealed
        self._checked = False

    @property
    def complete(self) -> bool:
        """Whether every release has arrived."""
        records = self.folder / "records.npy"
        return self._sealed.knows(records)

    def begin(self, total: int, shape: Sequence[int], tasks: int) -> CacheWriter:
        """Start to fill it, from nothing, with ``total`` releases of ``shape``."""
        self._checked = False
        return CacheWriter(self.folder, self._sealed, total, shape, tasks)

    def load(self) -> tuple[FloatArray, IntArray, IntArray]:
        """Payload ``(n, *shape)`` as a memory map, record numbers ``(n,)``, labels ``(n, n_tasks)``.

        Raises:
            CheckpointError: A file is not what was written; looked at once, when it is first loaded.
        """
        payload = self.folder / "payload.npy"
        if not self._checked:
            self._sealed.checked(payload)
            self._checked = True
        return (
            loaded_array(payload, mmap=True),
            self._sealed.read_array(self.folder / "records.npy"),
            self._sealed.read_array(self.folder / "labels.npy"),
        )


class CacheWriter:
    """Fills a cache in order of arrival; nothing is set aside for what was only announced."""

    def __init__(self, folder: Path, sealed: Sealed, total: int, shape: Sequence[int], tasks: int) -> None:
        self._folder, self._sealed, self._total, self._at = folder, sealed, total, 0
        self._tasks = tasks
        self._records: list[IntArray] = []
        self._labels: list[IntArray] = []
        self._temporary = folder / "payload.npy.tmp"
        head = io.BytesIO()
        layout = {"descr": "<f4", "fortran_order": False, "shape": (total, *shape)}
        np.lib.format.write_array_header_1_0(head, layout)
        try:
            folder.mkdir(parents=True, exist_ok=True)
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
        self._sealed.adopt(self._temporary, self._folder / "payload.npy")
        labels = np.concatenate([np.zeros((0, self._tasks), np.int64), *self._labels])
        self._sealed.write_array(self._folder / "labels.npy", labels)
        records = np.concatenate([np.zeros(0, np.int64), *self._records])
        self._sealed.write_array(self._folder / "records.npy", records)

    def _write(self, mode: Literal["wb", "ab"], data: bytes) -> None:
        with self._temporary.open(mode) as stream:
            stream.write(data)

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
