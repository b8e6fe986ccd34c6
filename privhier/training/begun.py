"""Which epochs of DP-SGD were begun: on disk before an epoch's first step, so that a kill hides none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from privhier.storage.sealed import Sealed, altered

Epoch = tuple[str, int]
"""Phase, epoch."""


class Begun:
    """The diary of a run's DP-SGD epochs: an entry for every time that one was begun.

    An epoch that was killed has taken noisy steps that no checkpoint remembers; begun again under system
    noise it takes others. The ledger is charged for both (``Ledger.verify_steps``).

    Args:
        path: JSON file, bound by its folder's digests; None: in memory only (tests, audits).

    Raises:
        CheckpointError: The file is not the diary that was written here.

    Example:
        >>> diary = Begun(None)
        >>> diary.enter("pretrain", 0)
        >>> dict(diary.counts)
        {('pretrain', 0): 1}
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._entries: list[Epoch] = []
        if path is not None and Sealed(path.parent).knows(path):
            self._entries = [_parse(path, entry) for entry in Sealed(path.parent).read_json(path)]

    @property
    def counts(self) -> Mapping[Epoch, int]:
        """How often each epoch was begun, in all processes of this run."""
        return Counter(self._entries)

    def enter(self, phase: str, epoch: int) -> None:
        """Write down that an epoch begins; call it after its charge and **before** its first step."""
        self._entries.append((phase, epoch))
        if self._path is not None:
            Sealed(self._path.parent).write_json(self._path, self._entries)


def _parse(path: Path, entry: object) -> Epoch:
    if isinstance(entry, list) and [type(part) for part in entry] == [str, int]:
        return entry[0], entry[1]
    raise altered(path, "holds no epochs that were begun; how often the edge was trained is not known")
