"""What lies under a data set's folder: its pictures, each real file once, and what is not read."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from privhier.datasets.base import Problem
from privhier.datasets.formats import PICTURE_SUFFIXES, UNREAD_SUFFIXES
from privhier.errors import DataError


@dataclass(frozen=True)
class Found:
    """The pictures under a folder.

    Attributes:
        pictures: Paths relative to the root with ``/`` between parts, sorted.
        problems: Links that were not followed, folders named like pictures, suffixes that are not read.
    """

    pictures: tuple[str, ...]
    problems: tuple[Problem, ...]


def walk(root: Path, prefix: str = "") -> Found:
    """Look at every name under ``root/prefix``.

    Links are followed, out of the root as well, but a folder is read once: what stands in place goes before
    links, and a link to a folder above the root, or to one that is read anyway, is not followed. A link to
    a file that is listed anyway is left out. So no link can count a picture twice.

    Raises:
        DataError: A folder that is there but cannot be read.
    """
    start = root / prefix
    seen = {os.path.realpath(each) for each in (start, *start.absolute().parents, *start.resolve().parents)}
    real: dict[str, str] = {}
    linked: list[tuple[str, str]] = []
    problems: list[Problem] = []
    pending, links = [_relative(start, root)], deque[tuple[str, str]]()
    while pending or links:
        if pending:
            here = pending.pop()
        else:
            here, target = links.popleft()
            if target in seen:
                problems.append(Problem(here, "link not followed: to a folder that is read anyway, or above"))
                continue
            seen.add(target)
        folder = os.path.realpath(root / here)
        for entry in _entries(root / here):
            path, place = f"{here}/{entry.name}".removeprefix("/"), f"{folder}/{entry.name}"
            suffix = Path(entry.name).suffix.lower()
            if _is_folder(entry):
                if suffix in PICTURE_SUFFIXES:
                    problems.append(Problem(path, "not a regular file: a folder"))
                if entry.is_symlink():
                    links.append((path, os.path.realpath(place)))
                elif place not in seen:
                    seen.add(place)
                    pending.append(path)
            elif suffix in PICTURE_SUFFIXES:
                if entry.is_symlink():
                    linked.append((path, os.path.realpath(place)))
                else:
                    real[place] = path
            elif suffix in UNREAD_SUFFIXES:
                problems.append(Problem(path, f"suffix not read: {suffix}"))
    for path, target in linked:
        if target in real:
            problems.append(Problem(path, "link not followed: to a picture that is listed anyway"))
        else:
            real[target] = path
    return Found(tuple(sorted(real.values())), tuple(sorted(problems, key=lambda problem: problem.where)))


def _relative(start: Path, root: Path) -> str:
    return "" if start == root else start.relative_to(root).as_posix()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            key="dataset.root",
            value=str(folder),
            rule=f"could not be read: {error.strerror}",
            remedy="Mend the folder's permissions or its disk, and start again",
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links, or one whose target may not be seen: reported when it is read
        return False
