"""What is particular to one official layout; what is common stands in the contract test."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from privhier.datasets.celeba import CelebA
from privhier.datasets.fairface import FairFace
from privhier.datasets.folder import Folder
from privhier.datasets.lfw import LFW
from privhier.datasets.utkface import UTKFace
from privhier.errors import DataError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        picture(tmp_path / "img_align_celeba" / f"00000{number}.jpg")
    (tmp_path / "list_attr_celeba.txt").write_text(
        "3\nMale Smiling\n000001.jpg  1 -1\n000002.jpg -1  1\n000003.jpg  1  1\n"
    )
    (tmp_path / "identity_CelebA.txt").write_text("000001.jpg 7\n000002.jpg 8\n000003.jpg 7\n")
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n")
    return tmp_path


def test_celeba_columns(celeba: Path) -> None:
    listing = CelebA().read(celeba, seed=0)
    assert {name: column.tolist() for name, column in listing.attributes.items()} == {
        "Male": [1, 0, 1],
        "Smiling": [0, 1, 1],
        "partition": [0, 1, 2],
    }
    assert listing.identity is not None
    assert listing.identity.tolist() == [7, 8, 7]
    assert listing.problems == ()


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"])
def test_celeba_names_a_missing_label_file(celeba: Path, file: str) -> None:
    (celeba / file).unlink()
    with pytest.raises(DataError) as caught:
        CelebA().read(celeba, seed=0)
    assert file in str(caught.value.value)


def test_celeba_reports_bad_rows(celeba: Path) -> None:
    (celeba / "list_attr_celeba.txt").write_text(
        "5\nMale Smiling\n000001.jpg  1 -1\n000002.jpg -1\n000003.jpg  1  0\n"
    )
    (celeba / "identity_CelebA.txt").write_text("000002.jpg 8\n000003.jpg 7\n")
    listing = CelebA().read(celeba, seed=0)
    assert len(listing) == 0
    reasons = sorted(problem.reason.partition(":")[0] for problem in listing.problems)
    assert reasons == [
        "count line",
        "image without label row",
        "image without label row",
        "malformed label row",
        "malformed label row",
        "missing label",
    ]


def test_celeba_refuses_another_file(celeba: Path) -> None:
    (celeba / "list_attr_celeba.txt").write_text("image_id,Male\n000001.jpg,1\n")
    with pytest.raises(DataError, match="must start with"):
        CelebA().read(celeba, seed=0)


def test_fairface_wants_its_columns(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "1.jpg")
    (tmp_path / "fairface_label_train.csv").write_text("file,age,gender\ntrain/1.jpg,3-9,Male\n")
    with pytest.raises(DataError, match="lacks the columns race, service_test"):
        FairFace().read(tmp_path, seed=0)


def test_utkface_flat_or_nested(tmp_path: Path) -> None:
    picture(tmp_path / "flat" / "5_1_2_20170101.jpg.chip.jpg")
    picture(tmp_path / "nested" / "UTKFace" / "5_1_2_20170101.jpg.chip.jpg")
    (tmp_path / "nested" / "utkface_labels.csv").write_text("not official\n")
    for root in (tmp_path / "flat", tmp_path / "nested"):
        listing = UTKFace().read(root, seed=0)
        assert {name: column.tolist() for name, column in listing.attributes.items()} == {
            "age": [5],
            "gender": [1],
            "race": [2],
        }
        assert listing.problems == ()


def test_lfw_gender_is_the_persons_majority(tmp_path: Path) -> None:
    for number in range(1, 5):
        picture(tmp_path / "lfw-deepfunneled" / "Jo_Ash" / f"Jo_Ash_000{number}.jpg")
    (tmp_path / "male_names.txt").write_text("Jo_Ash_0001.jpg\n")
    (tmp_path / "female_names.txt").write_text("Jo_Ash_0002.jpg\nJo_Ash_0003.jpg\n")
    assert LFW().read(tmp_path, seed=0).attributes["gender"].tolist() == [1, 1, 1, 1]
    with pytest.raises(DataError, match="LFW's image folder"):
        LFW(variant="funneled").read(tmp_path, seed=0)


def test_folder_types_its_columns(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "faces.csv").write_text("file,n,x,s,who\n./a.png,1,1.5,7b,Ann\nb.png,-2,3,8,Bo\n")
    listing = Folder(csv="faces.csv", image="file", identity="who").read(tmp_path, seed=0)
    assert {name: column.dtype.kind for name, column in listing.attributes.items()} == {
        "n": "i",
        "x": "f",
        "s": "U",
    }
    assert listing.identity is not None
    assert listing.identity.tolist() == [0, 1]
    chosen = Folder(csv="faces.csv", image="file", columns=["n"]).read(tmp_path, seed=0)
    assert list(chosen.attributes) == ["n"]
    with pytest.raises(
        DataError, match=r"lacks the columns image; it has file, n.*dataset\.options\.image=file"
    ):
        Folder(csv="faces.csv").read(tmp_path, seed=0)
    with pytest.raises(DataError, match="CSV file"):
        Folder().read(tmp_path, seed=0)
