"""AT&T (ORL) faces: 40 people, ten pictures each; AT&T Laboratories Cambridge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.layouts import hint_for
from privhier.datasets.listing import Listing, Source, malformed_file, pictures_under, require_folder
from privhier.datasets.registry import datasets

NAME = re.compile(r"s([0-9]{1,9})/([0-9]{1,9})\.pgm", re.IGNORECASE)


@datasets.register("att_faces")
class AttFaces(Source):
    """``att_faces/``: ``sN/M.pgm``. No column; the identity is N."""

    folder: ClassVar[str | None] = "att_faces"
    names_repeat: ClassVar[bool] = True

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows by person and picture number."""
        require_folder(root, "AT&T's folder")
        rows: list[tuple[int, int, str]] = []
        problems: list[Problem] = []
        for path in pictures_under(root):
            match = NAME.fullmatch(path)
            if match is None:
                problems.append(Problem(path, "malformed name: sN/M.pgm expected"))
            else:
                rows.append((int(match[1]), int(match[2]), path))
        if problems and not rows:
            hint = hint_for(root, ["s1/1.pgm"])
            raise malformed_file(
                root,
                "holds no picture named sN/M.pgm",
                f"{hint}Point dataset.root at the folder of s1 to s40",
            )
        rows.sort()
        return Listing(
            paths=tuple(path for _, _, path in rows),
            attributes={},
            identity=np.array([person for person, _, _ in rows], dtype=np.int64),
            problems=tuple(problems),
        )
