"""The one place where features leave the edge: charge, sanitize, encode, send, and be seen doing so."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.datasets.base import FloatArray, IntArray
from privhier.errors import GuaranteeError, OutputError
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import NoiseSource, SeededNoise, SystemNoise
from privhier.privacy.release import Release, ReleaseMechanism, as_releases
from privhier.seeding import torch_stream
from privhier.storage.sealed import Sealed
from privhier.training.batches import TrainingData, ordered_batches
from privhier.uplink.base import Uplink
from privhier.uplink.codec import MAX_BYTES, decode
from privhier.uplink.outgoing import outgoing

_HEADER = 2**16
"""Bytes kept for everything in a message but the features: 256 record numbers and labels, the header."""


HELD_BYTES = 2**28
"""Of the releases of a split that are held in memory; of more, all lie in a file. At CelebA's size a split of
maps takes tens of gigabytes."""


class Collector:
    """A sink that keeps what arrives, in order of arrival: the cloud's memory of validation and test.

    Args:
        folder: Where a file without a name is opened for more than ``HELD_BYTES``; None: all in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.payloads: list[FloatArray] = []
        self.records: list[IntArray] = []
        self._folder = folder
        self._file: BinaryIO | None = None
        self._rows = 0

    def receive(self, data: bytes) -> None:
        """Decode one message and keep it."""
        message = decode(data)
        self.payloads.append(np.asarray(message.payload, dtype=np.float32))
        self.records.append(message.records)
        if self._folder is not None and sum(part.nbytes for part in self.payloads) > HELD_BYTES:
            self._put_down(self._folder)

    def payload(self) -> FloatArray:
        """Everything received, float32 ``(n, *shape)``; from a file it is mapped, read-only."""
        if self._file is not None and self._folder is not None:
            shape = self.payloads[-1].shape[1:]
            self._put_down(self._folder)
            with self._file as file:
                file.flush()
                self.payloads = [np.memmap(file, dtype=np.float32, mode="r", shape=(self._rows, *shape))]
            self._file = None
        return self.payloads[0] if isinstance(self.payloads[0], np.memmap) else np.concatenate(self.payloads)

    def _put_down(self, folder: Path) -> None:
        """Write what is held to the file, all but a part without rows, which keeps the shape."""
        try:
            if self._file is None:
                folder.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=folder)
                Path(name).unlink()  # whatever happens, nothing is left behind
                self._file = os.fdopen(handle, "w+b")
            for part in self.payloads:
                self._file.write(np.ascontiguousarray(part).data)
                self._rows += len(part)
        except OSError as error:
            raise OutputError(
                key="--out",
                value=str(folder),
                rule=f"releases cannot be put down there: {error.strerror}",
                remedy="Free space and go on with --resume",
            ) from error
        self.payloads = [self.payloads[-1][:0]]


def write_side_by_side(sealed: Sealed, path: Path, parts: Sequence[FloatArray]) -> None:
    """Write T arrays ``(n, *shape)`` as one ``(n, T, *shape)`` in ``.npy``, a few records at a time."""
    first = parts[0]
    shape = (len(first), len(parts), *first.shape[1:])
    step = max(1, HELD_BYTES // max(4 * math.prod(shape[1:]), 1))
    with sealed.writing(path) as stream:
        layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, layout)
        for start in range(0, shape[0], step):
            rows = np.stack([part[start : start + step] for part in parts], axis=1)
            stream.write(np.ascontiguousarray(rows, dtype="<f4").data)


class Releaser:
    """Releases records of a split: every charge is in the ledger before its bytes go up.

    Args:
        config: The run.
        mechanism: Clip, noise, quantize.
        ledger: The account.
        run_id: Written into every message.
        labels: int64 ``(N, n_tasks)``, what training messages carry; None: labels in the clear.
        edge: Which edge of the run this is.
        once: Whether the uplink remembers across restarts what it was given and takes nothing twice:
            then a resumed epoch draws no release again, and is charged once.
    """

    def __init__(
        self,
        config: RunConfig,
        mechanism: ReleaseMechanism,
        ledger: Ledger,
        *,
        run_id: str,
        labels: Tensor | None = None,
        edge: int = 0,
        once: bool = False,
    ) -> None:
        self.config, self.mechanism, self.ledger, self.run_id = config, mechanism, ledger, run_id
        self._labels, self._edge, self._once = labels, edge, once

    def labels(self, data: TrainingData, records: IntArray) -> Tensor:
        """Task labels of these records as they go up, ``(B, n_tasks)``."""
        return (data.task if self._labels is None else self._labels)[records]

    def noise(self, split: str, phase: str, epoch: int, batch: int) -> NoiseSource:
        """Fresh noise for one batch of releases."""
        if self.config.privacy.noise_source == "system":
            return SystemNoise()
        return SeededNoise(self.config.noise_seed, "release", split, phase, epoch, batch)

    def charge(self, split: str, phase: str, epoch: int, records: int) -> None:
        """Enter one release of each of ``records`` records of ``split``."""
        charge = self.ledger.charge_once if self._once else self.ledger.charge
        charge(
            split=split,
            records=records,
            phase=phase,
            epoch=epoch,
            mechanism=self.mechanism,
            noise_source=self.config.privacy.noise_source,
        )

    def send(
        self,
        uplink: Uplink,
        split: str,
        phase: str,
        epoch: int,
        batch: int,
        records: IntArray,
        sanitized: Release | Sequence[Release],
        labelled: TrainingData | None = None,
    ) -> None:
        """Encode and send one release of ``records``; the ledger sees what goes before it goes.

        Args:
            uplink: Takes the message.
            split: Whose records.
            phase: Phase, as charged.
            epoch: Epoch, as charged.
            batch: Which message of the epoch.
            records: int64 ``(B,)``.
            sanitized: Their release, or several whose rows follow each other as the records do.
            labelled: Whose task labels go up with them, randomized where the run randomizes them; None: none.

        Raises:
            ReleaseError: Something else than releases.
            GuaranteeError: Made by another mechanism or with another noise source than the ledger was
                charged for, sent before, or not charged; nothing was observed or sent.
        """
        releases = as_releases(sanitized)
        for release in releases:
            self._check_own(release)
        message = outgoing(
            self.ledger,
            releases,
            run_id=self.run_id,
            split=split,
            phase=phase,
            epoch=epoch,
            batch=batch,
            records=records,
            task_labels=None if labelled is None else self.labels(labelled, records).numpy(),
            edge=self._edge,
        )
        uplink.send(message)

    def _check_own(self, release: Release) -> None:
        """Refuse what another mechanism made, be it one with the same noise that rounds otherwise."""
        if type(release.mechanism) is not type(self.mechanism) or release.mechanism != self.mechanism:
            raise GuaranteeError(
                key="release",
                value=repr(release.mechanism),
                rule=f"is not the mechanism that this run is charged for, {self.mechanism!r}",
                remedy="Release through the run's own mechanism",
            )

    @torch.no_grad()
    def release_split(
        self,
        uplink: Uplink,
        edge: EdgeSegment,
        data: TrainingData,
        split: str,
        phase: str,
        epoch: int,
        *,
        device: torch.device,
        with_labels: bool,
    ) -> None:
        """Release every record of ``split`` once, through the edge as it is now.

        Training records go in a fresh order: a cloud that trains on them as they come must not meet
        them sorted.
        """
        records: IntArray = getattr(data.splits, split)
        if split == "train":
            stream = torch_stream(self.config.seed, "shuffle", "release", phase, epoch)
            records = records[torch.randperm(len(records), generator=stream).numpy()]
        self.charge(split, phase, epoch, len(records))
        for number, batch in enumerate(messages_of(records, edge.release_shape)):
            z = edge_features(edge, data.images, batch, device=device)
            noise = self.noise(split, phase, epoch, number)
            sanitized = self.mechanism.sanitize(z, noise, edge.codebook)
            self.send(uplink, split, phase, epoch, number, batch, sanitized, data if with_labels else None)


def rows_of(shape: tuple[int, ...]) -> int:
    """Records of one message: 256, or as many wide ones as its bytes leave room for."""
    return max(1, min(256, (MAX_BYTES - _HEADER) // (4 * math.prod(shape))))


def messages_of(records: IntArray, shape: tuple[int, ...]) -> Iterator[IntArray]:
    """The records of each message of a split's release."""
    most = max(1, (MAX_BYTES - _HEADER) // (4 * math.prod(shape)))
    for batch in ordered_batches(records, rows_of(shape)):
        yield batch[:most]
        if len(batch) > most:  # a lone last record had joined a message that has no room for it
            yield batch[most:]
