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
    assert (made.task, made.sensitive) == (("glasses",), ("hat",))
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
    assert (made.task, made.sensitive) == (("glasses",), ("height",))  # forty values are still classes
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


def test_task_and_secrets_are_those_that_were_asked_for(own, tmp_path):
    label(own, [f"{n}.png,{150 + n},{n % 5 == 0:d},{n % 2}" for n in range(40)])
    for task, sensitive, expected in (
        (["hat"], [], (("hat",), ("glasses",))),
        ([], ["glasses"], (("hat",), ("glasses",))),
        (["bin(height, 160, 170)", "hat"], ["glasses"], (("bin(height, 160, 170)", "hat"), ("glasses",))),
    ):
        made = starter(section(own), name="mine", task=task, sensitive=sensitive)
        assert (made.task, made.sensitive) == expected
        path = tmp_path / "mine.yaml"
        path.write_text(made.yaml)
        config = load_config(path)
        assert (tuple(config.dataset.task), tuple(config.dataset.sensitive)) == expected
        letters = (config.model.bottleneck.size, config.model.bottleneck.letters)
        assert letters == ((1, 8) if len(expected[0]) == 1 else (4, 32))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"task": ["hats"]}, "dataset.task: 'hats' - folder has no column 'hats'. Did you mean hat"),
        ({"sensitive": ["identity"]}, "dataset.sensitive: 'identity' - folder names no people"),
        ({"task": ["height>500"]}, "dataset.task: 'height>500' - has one class only"),
        (
            {"task": ["hat"], "sensitive": ["hat==0"]},
            "dataset.task and dataset.sensitive: 'hat, hat==0'",
        ),
    ],
)
def test_what_the_labels_do_not_give_is_refused(own, chosen, said):
    label(own, [f"{n}.png,{150 + n},{n % 5 == 0:d},{n % 2}" for n in range(40)])
    with pytest.raises(DataError) as error:
        starter(section(own), name="mine", **chosen)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("root", "csv", "said"),
    [
        (".", "people.csv", "name yours in dataset.options.csv"),
        ("nowhere", "labels.csv", "Point dataset.root at the data set's folder"),
    ],
)
def test_an_own_table_or_folder_that_is_missing_is_no_official_one(own, root, csv, said):
    config = DatasetConfig(
        name="folder", root=str(own / root), task=["a"], sensitive=["b"], options={"csv": csv}
    )
    with pytest.raises(DataError) as error:
        starter(config, name="mine")
    assert said in error.value.remedy
    assert "official" not in error.value.remedy
    assert "PRIVHIER_DATA" not in error.value.remedy
