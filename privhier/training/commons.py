"""What runs of one sweep have in common: trained networks, unprotected references, attacks on raw images.

Each lies under a hash of everything that determines it, the data's fingerprint included. A run folder
links to its references and raw-image attacks while it is worked on, and has files of its own once it is
attacked (``settle``); a finished training is copied in (hard links where the file is never changed). Under
``privacy.noise_source: system`` one training for several runs means the very same releases, attacked again:
nothing more is released, and the ledger says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privhier.config import RunConfig, hashless
from privhier.errors import CheckpointError
from privhier.storage.locks import exclusive
from privhier.storage.sealed import NAME, Sealed
from privhier.training.folder import RunFolder

# The ledger next to last: a folder that has one, but no training.json, has work of its own in it.
_FILES = ("edge.safetensors", "tail.safetensors", "history.json", "ledger.jsonl", "training.json")
_WHERE_PRESENT = ("clip.json", "sent_labels.npy")
_FOLDERS = ("releases", "snapshots")
RESUME_ONLY = ("checkpoint.pt", "cloud_cache")
"""What a run folder is whole without, once its training is finished."""


def training_key(config: RunConfig) -> str:
    """Hash of what determines a trained network and its releases."""
    without: dict[str, Any] = dict.fromkeys(("name", "attacks", "evaluation", "report", "tracking"), True)
    if not config.warmup_epochs:  # as before the key existed: older run folders go on
        without["edge"] = {"warmup_epochs"}
    without["model"] = {"matched_filter"}
    data = config.model_dump(mode="json", exclude={**without, **_where(config)})
    if config.matched_filter:
        data["model"]["matched_filter"] = True
    return _digest("training", data | {"training_victims": config.attacks.training_victims})


def reference_key(reference: RunConfig) -> str:
    """Hash of an unprotected network's own configuration, attackers included."""
    return _digest("reference", {"hash": reference.hash()})


def raw_image_key(config: RunConfig) -> str:
    """Hash of what determines attacks on raw images, but for the attackers (each names its own file)."""
    sizes = {name: getattr(config.attacks, name) for name in ("auxiliary", "victims", "training_victims")}
    parts = config.model_dump(mode="json", include={"dataset", "runtime", "seed"}, exclude=_where(config))
    return _digest("raw_image", parts | sizes)


@dataclass(frozen=True)
class Commons:
    """The folder of what a sweep's runs have in common; on disk it is called ``shared``.

    Attributes:
        root: The folder.
        fingerprint: The data set's; other data under the same configuration shares nothing.
    """

    root: Path
    fingerprint: str

    def link(self, folder: RunFolder, config: RunConfig, references: Mapping[str, RunConfig]) -> None:
        """Make the run folder's references and raw-image attacks those of the sweep.

        A folder that holds its own already keeps it.
        """
        self._link(folder.attacks / "raw_image", "raw_image", raw_image_key(config))
        for name, reference in references.items():
            self._link(folder.reference(name).root, "references", reference_key(reference))

    @contextmanager
    def training(self, folder: RunFolder, config: RunConfig) -> Iterator[None]:
        """Train in the block unless ``folder`` holds a finished training when it is entered.

        One process at a time for one network. What another run trained is taken over before the block,
        what the block trained is published after it.
        """
        place = self._place("training", training_key(config))
        with exclusive(self._lock(place)):
            has_work = folder.checkpoint.exists() or folder.ledger.exists()
            if (place / folder.training.name).exists() and not has_work:
                _copy(place, folder.root)
            yield
            if folder.training.exists() and not place.exists():
                self._publish(folder.root, place)

    def _publish(self, source: Path, place: Path) -> None:
        work = place.with_name(f"{place.name}.tmp")  # under the lock it can only be debris
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _copy(source, work)
        work.rename(place)

    def _link(self, link: Path, kind: str, key: str) -> None:
        if link.is_symlink() or link.exists():
            return
        place = self._place(kind, key)
        place.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(place.resolve(), link.parent.resolve()), target_is_directory=True)

    def _place(self, kind: str, key: str) -> Path:
        return self.root / kind / hashlib.sha256(f"{key} {self.fingerprint}".encode()).hexdigest()[:16]

    def _lock(self, place: Path) -> Path:
        return self.root / "locks" / f"{place.parent.name}-{place.name}.lock"


def settle(folder: RunFolder) -> None:
    """Put files in place of the links of a run folder, so that it can be moved and copied on its own.

    A link to what is not there (the folder was taken out of its sweep by an older version, or before it was
    finished) is removed: what it stood for is made again.
    """
    references = folder.reference("any").root.parent
    for link in (folder.attacks / "raw_image", *sorted(references.glob("*"))):
        if not link.is_symlink():
            continue
        work, place = link.with_name(f".{link.name}.own"), link.resolve()
        shutil.rmtree(work, ignore_errors=True)  # left by a kill
        if place.is_dir():
            work.mkdir()
            for listing in sorted(place.rglob(NAME)):
                _take_folder(listing.parent, work / listing.parent.relative_to(place))
        link.unlink()
        if work.is_dir():
            work.rename(link)


def _take_folder(source: Path, target: Path) -> None:
    """The files that one list of digests names, but for what only a resume of its training needs."""
    facts, names = Sealed(source).contents()
    Sealed(target).bind(**facts)
    kept = [name for name in names if Path(name).parts[0] not in RESUME_ONLY]
    take_over(Sealed(source), Sealed(target), [name for name in kept if _worth_taking(Sealed(source), name)])


def _worth_taking(source: Sealed, name: str) -> bool:
    """All but what an attack answered, where it was damaged since: it is simply asked again."""
    if not name.endswith(".npz"):
        return True
    try:
        source.checked(source.root / name)
    except CheckpointError:
        return False
    return True


def take_over(source: Sealed, target: Sealed, names: Iterable[str]) -> None:
    """Bring files of one folder into another, each checked against the digests it was written under.

    Raises:
        CheckpointError: A file is missing or was altered.
    """
    for name in names:
        _take(source.checked(source.root / name), target.root / name, target)


def _copy(source: Path, target: Path) -> None:
    parts = [path for name in _FOLDERS for path in sorted((source / name).glob("*"))]
    names = [
        *(path.relative_to(source).as_posix() for path in parts if path.suffix != ".tmp"),
        *(name for name in _WHERE_PRESENT if Sealed(source).lists(source / name)),
        *_FILES,
    ]
    take_over(Sealed(source), Sealed(target), names)


def _take(source: Path, target: Path, sealed: Sealed) -> None:
    """Hard-link what is only ever replaced whole; copy what may be appended to, or where links fail."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        if source.suffix == ".jsonl":
            raise OSError("copied, never linked")
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    sealed.adopt(temporary, target)


def _where(config: RunConfig) -> dict[str, Any]:
    """What says where and how a run is computed, and is in no hash."""
    left_out = hashless(config.runtime)
    return {name: left_out[name] for name in ("dataset", "runtime")}


def _digest(kind: str, data: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{kind} {json.dumps(data, sort_keys=True)}".encode()).hexdigest()
