"""CelebA (Liu, Luo, Wang and Tang, 2015): 40 binary attributes, identities, the official partition."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from privhier.datasets.base import Problem
from privhier.datasets.listing import (
    Listing,
    Source,
    malformed_file,
    match_rows,
    pictures_under,
    require_file,
    require_folder,
)

IMAGES = "img_align_celeba"
ATTRIBUTES = "list_attr_celeba.txt"
IDENTITY = "identity_CelebA.txt"
PARTITION = "list_eval_partition.txt"


class CelebA(Source):
    """``celeba/`` as torchvision keeps it: ``img_align_celeba/``, ``list_attr_celeba.txt`` and two more.

    Columns: the attributes under the file's own names (``Male``, ``Smiling``, ...), 0 or 1, and
    ``partition`` (0 train, 1 valid, 2 test). Identities are the official numbers.
    """

    folder: ClassVar[str | None] = "celeba"

    def read(self, root: Path, *, seed: int) -> Listing:
        """See ``Source.read``; rows in the order of the attribute file."""
        require_folder(root / IMAGES, "CelebA's image folder")
        files, names, values, problems = _attributes(
            require_file(root / ATTRIBUTES, "CelebA's attribute file")
        )
        identity = _numbers(require_file(root / IDENTITY, "CelebA's identity file"))
        partition = _numbers(require_file(root / PARTITION, "CelebA's partition file"))
        rows, unmatched = match_rows(
            [f"{IMAGES}/{file}" for file in files], pictures_under(root, IMAGES), ATTRIBUTES
        )
        problems.extend(unmatched)
        kept: list[int] = []
        for row in rows:
            lacking = [
                name
                for name, table in ((IDENTITY, identity), (PARTITION, partition))
                if files[row] not in table
            ]
            if lacking:
                problems.append(Problem(f"{IMAGES}/{files[row]}", f"missing label: {' and '.join(lacking)}"))
            else:
                kept.append(row)
        chosen = np.asarray(kept, dtype=np.int64)
        columns = {name: values[chosen, place].astype(np.int64) for place, name in enumerate(names)}
        columns["partition"] = np.array([partition[files[row]] for row in kept], dtype=np.int64)
        return Listing(
            paths=tuple(f"{IMAGES}/{files[row]}" for row in kept),
            attributes=columns,
            identity=np.array([identity[files[row]] for row in kept], dtype=np.int64),
            problems=tuple(problems),
            value_names={"partition": {0: "train", 1: "valid", 2: "test"}},
        )


def _attributes(path: Path) -> tuple[list[str], list[str], npt.NDArray[np.int8], list[Problem]]:
    # The official file pads its cells with one or two spaces; split() takes any number.
    with path.open(encoding="utf-8") as lines:
        first, names = lines.readline().strip(), lines.readline().split()
        if not first.isdigit() or not names:
            raise malformed_file(
                path,
                "must start with a line of one count and a line of attribute names",
                "Use the official file",
            )
        files: list[str] = []
        rows: list[npt.NDArray[np.int8]] = []
        problems: list[Problem] = []
        for line in lines:
            file, *cells = line.split() or [""]
            if not file:
                continue
            if len(cells) != len(names) or not {"-1", "1"}.issuperset(cells):
                problems.append(
                    Problem(
                        f"{IMAGES}/{file}", f"malformed label row: {len(names)} cells of -1 or 1 expected"
                    )
                )
                continue
            files.append(file)
            rows.append(np.array([cell == "1" for cell in cells], dtype=np.int8))
    if len(files) + len(problems) != int(first):
        problems.append(
            Problem(ATTRIBUTES, f"count line: says {first} rows, the file has {len(files) + len(problems)}")
        )
    values = np.stack(rows) if rows else np.zeros((0, len(names)), dtype=np.int8)
    return files, names, values, problems


def _numbers(path: Path) -> dict[str, int]:
    table: dict[str, int] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            cells = line.split()
            # A line that does not read "file number" labels nothing: its image is then reported as unlabeled.
            if len(cells) == 2 and cells[1].isdigit():
                table[cells[0]] = int(cells[1])
    return table
