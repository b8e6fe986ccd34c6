"""What a data set knows before any picture is decoded: its files, their labels, what is wrong with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from privhier.datasets.base import ImageArray, IntArray, Problem
from privhier.datasets.walk import walk
from privhier.errors import DataError

Column = npt.NDArray[np.generic]
Renderer = Callable[[IntArray, int], ImageArray]
"""Draws records: (row numbers, image size in pixels) to uint8 ``(n, 3, size, size)``; safe in threads."""


@dataclass(frozen=True)
class Listing:
    """One row an image, in an order that depends on the source alone.

    Attributes:
        paths: File of each row, relative to the root with ``/`` between parts.
        attributes: Column name to an array of as many values as rows.
        identity: int64, one number a person, or None where the source names no people.
        problems: Files and label rows that gave no row.
        value_names: Human names of coded values, e.g. ``{"gender": {0: "male", 1: "female"}}``.
        photo: int64, one number for all versions of a photo where the source names these, else None.
        render: Given where records are drawn, not read; then ``paths`` are only names.
        lacking: Column name to the rows that have no label there, and why; ``attributes`` holds a stand-in
            in their place. ``load_dataset`` drops them where the run uses the column.
        notes: Column name to what a reader should know about it.
        unavailable: Columns (or ``identity``) that this copy of the data lacks, and why.
        layout: Which of the source's layouts was found, in words, without the root.
    """

    paths: tuple[str, ...]
    attributes: Mapping[str, Column]
    identity: IntArray | None = None
    problems: tuple[Problem, ...] = ()
    value_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    photo: IntArray | None = None
    render: Renderer | None = None
    lacking: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    layout: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: IntArray) -> Listing:
        """The listing of ``rows`` alone, in that order."""
        draw = self.render
        place = {row: number for number, row in enumerate(rows.tolist())} if self.lacking else {}
        return replace(
            self,
            paths=tuple(self.paths[row] for row in rows.tolist()),
            attributes={name: column[rows] for name, column in self.attributes.items()},
            identity=None if self.identity is None else self.identity[rows],
            photo=None if self.photo is None else self.photo[rows],
            render=None if draw is None else lambda chosen, size: draw(rows[chosen], size),
            lacking={
                name: {place[row]: why for row, why in gaps.items() if row in place}
                for name, gaps in self.lacking.items()
            },
        )


class Source(BaseModel, ABC):
    """A data set in its official on-disk layout; its fields are the options under ``dataset.options``.

    Class attributes:
        folder: Name of its folder under ``$PRIVHIER_DATA``; None where ``dataset.root`` must say it.
        on_disk: False where nothing is read (``synthetic``).
        names_repeat: True where the layout numbers the files of each folder anew.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    folder: ClassVar[str | None] = None
    on_disk: ClassVar[bool] = True
    names_repeat: ClassVar[bool] = False

    @property
    def seeks_near_doubles(self) -> bool:
        """Whether pictures that look like versions of one photo are looked for, and tied."""
        return True

    @abstractmethod
    def read(self, root: Path, *, seed: int) -> Listing:
        """List every usable image under ``root``, without decoding any.

        Raises:
            DataError: A label file or image folder that is missing or not in its format.
        """


def require_file(
    path: Path,
    what: str,
    *,
    hint: str = "",
    remedy: str = "Put the official file there, or point dataset.root at the data set's folder",
) -> Path:
    """``path`` if it is a file, else a ``DataError``: where ``what`` was looked for, with ``hint``."""
    fault = _fault(path.is_file, what)
    if fault is not None:
        raise DataError(
            key="dataset.root",
            value=str(path),
            rule=fault,
            remedy=f"{hint}{remedy}",
        )
    return path


def require_folder(
    path: Path, what: str, *, hint: str = "", remedy: str = "Point dataset.root at the data set's folder"
) -> Path:
    """``path`` if it is a folder, else a ``DataError``: where ``what`` was looked for, with ``hint``."""
    fault = _fault(path.is_dir, what)
    if fault is not None:
        raise DataError(
            key="dataset.root",
            value=str(path),
            rule=fault,
            remedy=f"{hint}{remedy}",
        )
    return path


def _fault(there: Callable[[], bool], what: str) -> str | None:
    try:
        return None if there() else f"{what} is missing"
    except (OSError, ValueError) as error:  # no permission, a name that is too long or no name at all
        return f"{what} cannot be looked at: {getattr(error, 'strerror', None) or error}"


def malformed_file(path: Path, rule: str, remedy: str) -> DataError:
    """The error of a label file that is not in its official format."""
    return DataError(key="dataset.root", value=str(path), rule=rule, remedy=remedy)


def pictures_under(root: Path, prefix: str = "") -> list[str]:
    """Picture files anywhere under ``root/prefix``, sorted, relative to ``root``; each real file once.

    Raises as ``walk.walk`` does, which says how links are followed.
    """
    return list(walk(root, prefix).pictures)
