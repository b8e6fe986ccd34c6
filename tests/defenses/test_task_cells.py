"""Task cells are numbered in one place: what the numbers are, and that those who count by them agree."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from privhier.defenses.task_cells import task_cells
from privhier.seeding import torch_stream

CLASSES = (2, 3, 4)


def drawn(n: int = 500) -> list[torch.Tensor]:
    draw = torch_stream(0, "task cells")
    return [torch.randint(-1, k, (n,), generator=draw) for k in CLASSES]


@pytest.mark.parametrize("classes", [CLASSES, None, (5, 7, 9)])
def test_equal_labels_share_a_cell_and_cells_lie_in_the_order_of_the_labels(classes):
    labels = drawn()
    cells, known = task_cells(labels, classes)
    rows = list(zip(*(column.tolist() for column in labels), strict=True))
    assert known.tolist() == [-1 not in row for row in rows]
    numbers = {row: cell for row, cell in zip(rows, cells.tolist(), strict=True) if -1 not in row}
    assert sorted(numbers, key=numbers.get) == sorted(numbers)
    assert len(set(numbers.values())) == len(numbers) == 24
    if classes == CLASSES:
        product = itertools.product(*(range(k) for k in CLASSES))
        assert [numbers[row] for row in product] == list(range(24))
    assert all(cell == numbers[row] for row, cell in zip(rows, cells.tolist(), strict=True) if row in numbers)


def test_an_unknown_label_stays_in_range():
    labels = [torch.full((3,), -1), torch.tensor([0, 1, 2])]
    cells, known = task_cells(labels, (2, 3))
    assert cells.tolist() == [0, 1, 2]
    assert not known.any()
    assert labels[0].tolist() == [-1, -1, -1]


def test_no_defense_numbers_them_by_itself():
    """The product of labels and class counts is written in one file."""
    room = Path(task_cells.__code__.co_filename).parent
    found = [
        path.name for path in sorted(room.glob("*.py")) if re.search(r"cells \* |cells\*=?", path.read_text())
    ]
    assert found == ["letters_balance.py", "task_cells.py"]  # there: the place in a table of cell and class
