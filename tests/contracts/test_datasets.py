"""What every data set must do, on small fixtures in its official on-disk layout."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.check import check_dataset
from privhier.datasets.load import load_dataset
from privhier.datasets.registry import datasets
from privhier.errors import DataError


@dataclass(frozen=True)
class Row:
    """One data set: how its fixture is written, and what must be read from it."""

    name: str
    write: Callable[[Path], None]
    records: int
    columns: tuple[str, ...]
    identities: int | None
    problems: dict[str, int]
    attribute: str = ""
    truth: tuple[int, ...] = ()
    options: dict[str, object] = field(default_factory=dict)
    on_disk: bool = True


def picture(path: Path, number: int, size: tuple[int, int] = (40, 40), mode: str = "RGB") -> None:
    """A small picture whose colors depend on ``number``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    Image.fromarray(((ramp + 37 * number) % 256).astype(np.uint8)).convert(mode).save(path)


def broken(path: Path) -> None:
    """A JPEG that ends too early."""
    picture(path, 0)
    path.write_bytes(path.read_bytes()[:300])


def write_celeba(root: Path) -> None:
    for number in range(1, 7):
        picture(root / "img_align_celeba" / f"{number:06d}.jpg", number, (178, 218))
    broken(root / "img_align_celeba" / "000005.jpg")
    # The official file pads single-digit cells with a second space and ends its lines with one.
    (root / "list_attr_celeba.txt").write_text(
        "6\n5_o_Clock_Shadow Male Smiling \n"
        "000001.jpg -1  1  1 \n000002.jpg  1 -1  1\n000003.jpg -1 -1 -1\n"
        "000004.jpg  1  1 -1\n000005.jpg -1  1  1\n000009.jpg -1  1  1\n"
    )
    (root / "identity_CelebA.txt").write_text(
        "".join(f"{number:06d}.jpg {person}\n" for number, person in enumerate((2880, 2937, 2880, 17, 5), 1))
    )
    (root / "list_eval_partition.txt").write_text(
        "".join(f"{number:06d}.jpg {part}\n" for number, part in enumerate((0, 0, 1, 2, 0), 1))
    )


def write_fairface(root: Path) -> None:
    header = ["file", "age", "gender", "race", "service_test"]
    rows = {
        "train": [
            ["train/1.jpg", "50-59", "Male", "East Asian", "True"],
            ["train/2.jpg", "30-39", "Female", "Indian", "False"],
            ["train/3.jpg", "3-9", "Female", "", "False"],
            ["train/4.jpg", "more than 70", "Male", "White", "True"],
        ],
        "val": [
            ["val/1.jpg", "3-9", "Male", "East Asian", "False"],
            ["val/7.jpg", "3-9", "Male", "Black", "True"],
        ],
    }
    for part, table in rows.items():
        with (root / f"fairface_label_{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *table])
    for number, name in enumerate(("train/1", "train/2", "train/3", "val/1", "val/2")):
        picture(root / f"{name}.jpg", number)
    broken(root / "train/4.jpg")


def write_utkface(root: Path) -> None:
    names = ["26_0_1_20170104", "61_1_0_20170110", "1_1_4_20170111", "80_0_3_20170112"]
    for number, name in enumerate(names):
        picture(root / "UTKFace" / f"{name}.jpg.chip.jpg", number)
    copy = root / "UTKFace" / "27_0_1_20170104.jpg.chip.jpg"
    copy.write_bytes((root / "UTKFace" / f"{names[0]}.jpg.chip.jpg").read_bytes())
    broken(root / "UTKFace" / "30_0_0_20170113.jpg.chip.jpg")
    picture(root / "UTKFace" / "39_1_20170116174525125.jpg.chip.jpg", 8)
    picture(root / "UTKFace" / "39_1_7_20170116174525125.jpg.chip.jpg", 9)


def write_lfw(root: Path) -> None:
    for number, name in enumerate(("Ann_Lee_0001", "Ann_Lee_0002", "Bo_0001", "Cy_0001", "Di_0001")):
        picture(root / "lfw-deepfunneled" / name[:-5] / f"{name}.jpg", number, (50, 50))
    broken(root / "lfw-deepfunneled" / "Bo" / "Bo_0002.jpg")
    (root / "male_names.txt").write_text("Bo_0001.jpg\nBo_0002.jpg\nDi_0001.jpg\nBo_0009.jpg\n")
    (root / "female_names.txt").write_text("Ann_Lee_0001.jpg\nDi_0001.jpg\n")


def write_att_faces(root: Path) -> None:
    for person in (1, 2, 10):
        for number in (1, 2):
            picture(root / f"s{person}" / f"{number}.pgm", person + number, (92, 112), "L")
    picture(root / "s1" / "extra.pgm", 9, (92, 112), "L")
    (root / "s2" / "3.pgm").write_bytes(b"P5\n92 112\n255\nshort")


def write_folder(root: Path) -> None:
    for number, name in enumerate(("a.png", "sub/b.jpg", "c.bmp", "orphan.jpg")):
        picture(root / name, number, (60, 40))
    broken(root / "d.jpg")
    (root / "labels.csv").write_text(
        "image,who,hat,height,mood\na.png,x,1,1.5,gay\nsub/b.jpg,y,0,2,sad\nc.bmp,x,1,,sad\n"
        "d.jpg,z,1,1,sad\ne.jpg,z,1,1,sad\na.png,x,0,1,sad\n"
    )


BROKEN = {"broken image": 1}
ROWS = [
    Row(
        "celeba",
        write_celeba,
        records=4,
        columns=("5_o_Clock_Shadow", "Male", "Smiling", "partition"),
        identities=3,
        problems={**BROKEN, "label row without image": 1, "image without label row": 1},
        attribute="Male",
        truth=(1, 0, 0, 1),
    ),
    Row(
        "fairface",
        write_fairface,
        records=3,
        columns=("age", "gender", "race", "service_test", "partition"),
        identities=None,
        problems={
            **BROKEN,
            "label row without image": 1,
            "image without label row": 1,
            "missing label": 1,
        },
        attribute="race==East Asian",
        truth=(1, 0, 1),
    ),
    Row(
        "utkface",
        write_utkface,
        records=5,
        columns=("age", "gender", "race"),
        identities=None,
        problems={**BROKEN, "malformed name": 2},
        attribute="age>30",
        truth=(0, 0, 0, 1, 1),
    ),
    Row(
        "lfw",
        write_lfw,
        records=3,
        columns=("gender",),
        identities=2,
        problems={**BROKEN, "no gender for this person": 2, "label row without image": 1},
        attribute="gender",
        truth=(1, 1, 0),
    ),
    Row(
        "att_faces",
        write_att_faces,
        records=6,
        columns=(),
        identities=3,
        problems={**BROKEN, "malformed name": 1},
        attribute="identity",
        truth=(0, 0, 1, 1, 2, 2),
    ),
    Row(
        "folder",
        write_folder,
        records=2,
        columns=("hat", "height", "mood"),
        identities=2,
        problems={
            **BROKEN,
            "missing label": 1,
            "label row without image": 1,
            "repeated label row": 1,
            "image without label row": 1,
        },
        attribute="mood",
        truth=(0, 1),
        options={"identity": "who"},
    ),
    Row(
        "synthetic",
        lambda root: None,
        records=30,
        columns=("male", "dark_hair", "glasses", "beard", "smiling", "hat", "skin", "age"),
        identities=6,
        problems={},
        attribute="bin(age, 40)",
        options={"images": 30, "identities": 6},
        on_disk=False,
    ),
]


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture
def config(row: Row, tmp_path: Path) -> DatasetConfig:
    root = tmp_path / "data"
    root.mkdir()
    row.write(root)
    return DatasetConfig(
        name=row.name,
        root=str(root) if row.on_disk else None,
        cache=str(tmp_path / "cache"),
        image_size=24,
        task=["task"],
        sensitive=["sensitive"],
        options=row.options,
    )


def test_every_registered_dataset_has_a_row() -> None:
    handed_over = {"arrays"}  # no layout on a disk: tests/datasets/test_arrays.py
    assert {row.name for row in ROWS} == set(datasets.names()) - handed_over


def test_reads_its_official_layout(row: Row, config: DatasetConfig) -> None:
    faces = load_dataset(config, seed=0)

    assert len(faces) == row.records
    assert faces.images.shape == (row.records, 3, 24, 24)
    assert faces.images.dtype == np.uint8
    assert tuple(faces.attributes) == row.columns
    assert all(column.shape == (row.records,) for column in faces.attributes.values())
    for numbers in (faces.group, faces.duplicate_group):
        assert numbers.shape == (row.records,)
        assert numbers.dtype == np.int64
    if row.identities is None:
        assert faces.identity is None
        np.testing.assert_array_equal(faces.group, faces.duplicate_group)
    else:
        assert faces.identity is not None
        assert len(np.unique(faces.identity)) == row.identities
        np.testing.assert_array_equal(faces.group, faces.identity)
    assert all(flat.any() for flat in faces.images.reshape(row.records, -1))


def test_counts_what_it_skips(row: Row, config: DatasetConfig) -> None:
    faces = load_dataset(config, seed=0)

    assert Counter(problem.reason.partition(":")[0] for problem in faces.problems) == row.problems
    assert check_dataset(config).problems == row.problems
    # What is reported may be published: it must not tell where the data lie.
    assert config.root is None or all(config.root not in repr(problem) for problem in faces.problems)


def test_labels_stay_with_their_pictures(row: Row, config: DatasetConfig) -> None:
    labels = evaluate_attribute(row.attribute, load_dataset(config, seed=0))

    assert set(labels.values.tolist()) == set(range(len(labels.classes)))
    if row.truth:
        assert tuple(labels.values.tolist()) == row.truth


def test_pictures_are_read_only(config: DatasetConfig) -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_dataset(config, seed=0).images[0] = 0


def test_second_start_is_the_same_and_reads_no_picture(
    config: DatasetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_dataset(config, seed=0)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture was read again")

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    second = load_dataset(config, seed=0)

    np.testing.assert_array_equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint
    assert first.problems == second.problems
    for name, column in first.attributes.items():
        np.testing.assert_array_equal(column, second.attributes[name])


def test_a_missing_root_is_named(row: Row, config: DatasetConfig, tmp_path: Path) -> None:
    if not row.on_disk:
        pytest.skip("nothing is read from disk")
    with pytest.raises(DataError) as caught:
        load_dataset(config.model_copy(update={"root": str(tmp_path / "nowhere")}), seed=0)
    assert caught.value.key == "dataset.root"
    assert not (tmp_path / "cache").exists()


def test_an_empty_root_is_refused(row: Row, config: DatasetConfig, tmp_path: Path) -> None:
    if not row.on_disk:
        pytest.skip("nothing is read from disk")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        load_dataset(config.model_copy(update={"root": str(tmp_path / "empty")}), seed=0)
