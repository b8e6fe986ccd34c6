"""Which epochs of DP-SGD were begun: on disk before an epoch's first step, so that a kill hides none."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from privhier.errors import CheckpointError
from privhier.files import sync_folder

Epoch = tuple[str, int]
"""Phase, epoch."""


class Begun:
    """The diary of a run's DP-SGD epochs, one JSON line for every time that one was begun.

    An epoch that was killed has taken noisy steps that no checkpoint remembers; begun again under system
    noise it takes others. The ledger is charged for both (``Ledger.verify_steps``).

    Args:
        path: JSON-lines file, read if it is there and appended to; None: in memory only (tests, audits).

    Raises:
        CheckpointError: The file is no such diary. A last line torn by a crash is dropped: no step of its
            epoch was taken.

    Example:
        >>> diary = Begun(None)
        >>> diary.enter("pretrain", 0)
        >>> dict(diary.counts)
        {('pretrain', 0): 1}
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._counts: Counter[Epoch] = Counter()
        if path is not None and path.exists():
            self._read(path)

    @property
    def counts(self) -> Mapping[Epoch, int]:
        """How often each epoch was begun, in all processes of this run."""
        return self._counts

    def enter(self, phase: str, epoch: int) -> None:
        """Write down that an epoch begins; call it after its charge and **before** its first step."""
        if self._path is not None:
            new = not self._path.exists()
            with self._path.open("ab") as stream:
                stream.write((json.dumps([phase, epoch]) + "\n").encode())
                stream.flush()
                os.fsync(stream.fileno())
            if new:
                sync_folder(self._path.parent)
        self._counts[(phase, epoch)] += 1

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            self._counts[_parse(path, number, line)] += 1
        if whole != data:
            with path.open("r+b") as stream:
                stream.truncate(len(whole))


def _parse(path: Path, number: int, line: bytes) -> Epoch:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and [type(part) for part in found] == [str, int]:
        return found[0], found[1]
    raise CheckpointError(
        key="RUN",
        value=f"{path.name}:{number}: {line[:80]!r}",
        rule="is not an epoch that was begun; how often the edge was trained is not known",
        remedy="No epsilon can be defended for this run; start it anew in another folder",
    )
