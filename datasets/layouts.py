"""Where a data set really lies: parts under any of their usual names, and what to say where they are not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from privhier.datasets.formats import PICTURE_SUFFIXES

MOST_FOLDERS = 2000
"""A hint looks into no more folders than this: it is a courtesy, not a search."""


def find(root: Path, places: Iterable[str]) -> str | None:
    """The first of ``places`` (relative to ``root``) that is there, as it is spelled on disk.

    Every part is looked for as written, then in any case (``Anno``, ``anno``).
    """
    for place in places:
        spelled = _spelled(root, place)
        if spelled is not None:
            return spelled
    return None


def find_folder(root: Path, places: Iterable[str]) -> str | None:
    """The first of ``places`` that is a folder; if it holds only a folder of its own name, that one.

    Archives are often unpacked into a folder of their name: ``img_align_celeba/img_align_celeba/``.
    """
    for place in places:
        spelled = _spelled(root, place)
        if spelled is None or not (root / spelled).is_dir():
            continue
        inner = _spelled(root / spelled, Path(spelled).name)
        nested = inner is not None and (root / spelled / inner).is_dir() and not _has_pictures(root / spelled)
        return f"{spelled}/{inner}" if nested else spelled
    return None


def there(path: Path) -> bool:
    """Whether there is something at ``path``; not where it may not be looked at or is no possible name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def hint_for(root: Path, places: Sequence[str]) -> str:
    """A sentence that says where ``places`` are instead: ``dataset.root`` points too deep or too high.

    Returns ``""`` where they are neither in the two folders above nor in those up to two levels below.
    """
    for folder in (*_above(root), *_below(root)):
        if find(folder, places) is not None:
            way = "deep" if folder in _above(root) else "high"
            return f"dataset.root points too {way}: set it to {folder}. "
    return ""


def folders_in(folder: Path) -> list[str]:
    """Names of the folders right in ``folder``, sorted; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def _above(root: Path) -> list[Path]:
    resolved = root.resolve()
    return [parent for parent in list(resolved.parents)[:2] if parent != parent.parent]


def _below(root: Path) -> Iterator[Path]:
    seen = 0
    level = [root]
    for _ in range(2):
        level = [folder / name for folder in level for name in folders_in(folder)[:MOST_FOLDERS]]
        for folder in level:
            seen += 1
            if seen > MOST_FOLDERS:
                return
            yield folder


def _spelled(root: Path, place: str) -> str | None:
    if there(root / place):
        return place
    parts: list[str] = []
    folder = root
    for part in place.split("/"):
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except OSError:
            return None
        fit = part if part in names else next((name for name in names if name.lower() == part.lower()), None)
        if fit is None:
            return None
        parts.append(fit)
        folder /= fit
    return "/".join(parts)


def _has_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in PICTURE_SUFFIXES for entry in entries)
