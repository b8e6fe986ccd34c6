"""A first configuration from what is found in a data set."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig, load_config
from privhier.datasets.check import check_dataset
from privhier.datasets.starter import starter
from privhier.errors import DataError


@pytest.fixture
def own(tmp_path):
    """Forty pictures in a folder of their own, and a table that names them without it."""
    root = tmp_path / "own"
    (root / "pictures").mkdir(parents=True)
    draws = np.random.default_rng(0)
    for number in range(40):
        pixels = draws.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{number}.png")
    return root


def label(root, rows, header="image,height,hat,glasses", before="pictures/"):
    text = "\n".join([header, *(f"{before}{row}" for row in rows)])
    (root / "labels.csv").write_text(text + "\n")


def section(root):
    return DatasetConfig(name="folder", root=str(root), task=["task"], sensitive=["sensitive"])


def test_two_even_classes_go_before_uneven_ones_and_numbers(own, tmp_path):
    label(own, [f"{n}.png,{150 + n * 1.5},{n % 5 == 0:d},{n % 2}" for n in range(40)])
    made = starter(section(own), name="mine")
    assert (made.task, made.sensitive) == ("glasses", "hat")
    assert made.lines[0] == "folder: 40 labelled images"
    path = tmp_path / "mine.yaml"
    path.write_text(made.yaml)
    config = load_config(path)  # what is written can be run
    assert config.dataset.task == ["glasses"]
    report = check_dataset(config.dataset.model_copy(update={"cache": str(tmp_path / "cache")}))
    assert report.records == 40


def test_a_number_is_cut_at_its_median(own):
    rows = [f"{n}.png,{150 + n * 1.5},a,{n % 2}" for n in range(40)]
    label(own, rows)
    made = starter(section(own), name="mine")
    assert (made.task, made.sensitive) == ("glasses", "height")  # forty values are still classes
    assert any(line.startswith("hat: of no use") for line in made.lines)


def test_one_attribute_alone_is_refused(own):
    label(own, [f"{n}.png,{n % 2}" for n in range(40)], header="image,glasses")
    with pytest.raises(DataError, match="1 attributes with two classes or more"):
        starter(section(own), name="mine")


def test_a_missing_folder_before_the_names_is_said_first(own):
    label(own, [f"{n}.png,1.5,{n % 2},{n % 3 == 0:d}" for n in range(40)], before="")
    with pytest.raises(DataError, match="missing folder: 40 rows name files that lie under pictures/"):
        starter(section(own), name="mine")
    chosen = section(own).model_copy(update={"task": ["hat"], "sensitive": ["glasses"]})
    with pytest.raises(DataError, match=r"the first: labels\.csv \(missing folder: 40 rows"):
        check_dataset(chosen)


def test_a_row_that_lacks_its_picture_is_no_missing_folder(own):
    label(own, [f"{n}.png,1.5,{n % 2},{n % 3 == 0:d}" for n in range(45)])
    chosen = section(own).model_copy(
        update={"task": ["hat"], "sensitive": ["glasses"], "cache": str(own.parent / "cache")}
    )
    report = check_dataset(chosen)
    assert report.records == 40
    assert not any("missing folder" in kind for kind in report.problems)
