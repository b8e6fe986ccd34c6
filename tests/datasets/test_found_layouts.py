"""The layouts people really have: read, or recognized in the message."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets.att_faces import AttFaces
from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.celeba import CelebA
from privhier.datasets.check import check_dataset
from privhier.datasets.fairface import FairFace
from privhier.datasets.folder import Folder
from privhier.datasets.lfw import LFW
from privhier.datasets.listing import Listing, Source
from privhier.datasets.load import load_dataset
from privhier.errors import ConfigError, DataError

MakeConfig = Callable[..., DatasetConfig]


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, 0, 0)).save(path)


def kinds(listing: Listing) -> Counter[str]:
    return Counter(problem.reason.partition(":")[0] for problem in listing.problems)


CELEBA_TEXT = {
    "list_attr_celeba.txt": "3\nMale Smiling\n1.jpg  1 -1\n2.jpg -1  1\n3.jpg  1  1\n",
    "identity_CelebA.txt": "1.jpg 7\n2.jpg 8\n3.jpg 7\n",
    "list_eval_partition.txt": "1.jpg 0\n2.jpg 1\n3.jpg 2\n",
}
CELEBA_CSV = {
    "list_attr_celeba.csv": "image_id,Male,Smiling\n1.jpg,1,-1\n2.jpg,-1,1\n3.jpg,1,1\n",
    "list_eval_partition.csv": "image_id,partition\n1.jpg,0\n2.jpg,1\n3.jpg,2\n",
}
TORCHVISION = {"list_attr_celeba": "", "identity_CelebA": "", "list_eval_partition": ""}
DRIVE = {"list_attr_celeba": "Anno/", "identity_CelebA": "Anno/", "list_eval_partition": "Eval/"}


def celeba(
    root: Path, images: str, texts: dict[str, str], places: dict[str, str], suffix: str = "jpg"
) -> Path:
    for number in (1, 2, 3):
        picture(root / images / f"{number}.{suffix}", 60 * number)
    for name, text in texts.items():
        path = root / places[name.partition(".")[0]] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("images", "texts", "places", "suffix"),
    [
        ("img_align_celeba", CELEBA_TEXT, TORCHVISION, "jpg"),
        ("img_align_celeba/img_align_celeba", CELEBA_TEXT, TORCHVISION, "jpg"),
        ("Img/img_align_celeba", CELEBA_TEXT, DRIVE, "jpg"),
        ("img/img_align_celeba", CELEBA_TEXT, {name: place.lower() for name, place in DRIVE.items()}, "jpg"),
        ("Img/img_align_celeba_png", CELEBA_TEXT, DRIVE, "png"),
        ("img_align_celeba", CELEBA_CSV, TORCHVISION, "jpg"),
        ("img_align_celeba/img_align_celeba", CELEBA_CSV, TORCHVISION, "jpg"),
        (
            "img_align_celeba/img_align_celeba",
            {**CELEBA_CSV, "identity_CelebA.txt": CELEBA_TEXT["identity_CelebA.txt"]},
            TORCHVISION,
            "jpg",
        ),
    ],
    ids=["torchvision", "nested", "drive", "lower", "png", "csv", "kaggle", "kaggle+identity"],
)
def test_celeba(
    tmp_path: Path, images: str, texts: dict[str, str], places: dict[str, str], suffix: str
) -> None:
    listing = CelebA().read(celeba(tmp_path, images, texts, places, suffix), seed=0)
    assert listing.paths == tuple(f"{images}/{number}.{suffix}" for number in (1, 2, 3))
    assert {name: column.tolist() for name, column in listing.attributes.items()} == {
        "Male": [1, 0, 1],
        "Smiling": [0, 1, 1],
        "partition": [0, 1, 2],
    }
    assert f"images in {images}/" in listing.layout
    assert kinds(listing) == ({"matched under another spelling": 1} if suffix == "png" else {})
    if "identity_CelebA.txt" in texts:
        assert listing.identity is not None
        assert listing.identity.tolist() == [7, 8, 7]
        assert listing.unavailable == {}
    else:
        assert listing.identity is None
        assert "identity_CelebA.txt" in listing.unavailable["identity"]


def test_kaggles_celeba_misses_people_only_when_asked(make_config: MakeConfig, tmp_path: Path) -> None:
    root = celeba(tmp_path / "data", "img_align_celeba/img_align_celeba", CELEBA_CSV, TORCHVISION)
    config = make_config("celeba", root=str(root), task=["Smiling"], sensitive=["Male"])
    faces = load_dataset(config, seed=0)
    assert faces.problems == ()
    assert evaluate_attribute("Male", faces).values.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match=r"names no people; put the official identity_CelebA\.txt beside"):
        evaluate_attribute("identity", faces)
    with pytest.raises(ConfigError, match=r"identity_CelebA\.txt"):
        load_dataset(config.model_copy(update={"min_images_per_identity": 2}), seed=0)
    lines = "\n".join(check_dataset(config).lines())
    assert (
        "layout: Kaggle, labels in list_attr_celeba.csv, images in img_align_celeba/img_align_celeba/"
        in lines
    )
    assert "no identity: Kaggle's form of CelebA names no people" in lines


def test_celeba_cells_are_closed(tmp_path: Path) -> None:
    def read(attributes: str, partition: str = "image_id,partition\n1.jpg,0\n2.jpg,1\n3.jpg,2\n") -> Listing:
        texts = {"list_attr_celeba.csv": attributes, "list_eval_partition.csv": partition}
        return CelebA().read(celeba(tmp_path, "img_align_celeba", texts, TORCHVISION), seed=0)

    ones = read("image_id,Male,Smiling\n1.jpg,1,0\n2.jpg,0,1\n3.jpg,1,1\n")  # some copies
    assert ones.attributes["Male"].tolist() == [1, 0, 1]
    gaps = read("image_id,Male,Smiling\n1.jpg,1.0,-1\n2.jpg,,1\n3.jpg,-1.0,1\n")
    assert gaps.lacking == {"Male": {1: "missing label: Male"}}
    assert gaps.attributes["Male"][[0, 2]].tolist() == [1, 0]
    mixed = read("image_id,Male,Smiling\n1.jpg,1,0\n2.jpg,-1,1\n3.jpg,2,1\n")
    assert mixed.paths == ("img_align_celeba/2.jpg",)
    assert kinds(mixed) == {"malformed label row": 2, "image without label row": 2}
    with pytest.raises(DataError, match="two columns named 'Male'"):
        read("image_id,Male,Male\n1.jpg,1,1\n")
    parts = read("image_id,Male\n1.jpg,1\n2.jpg,-1\n3.jpg,1\n", "image_id,partition\n1.jpg,0\n2.jpg,5\n")
    assert parts.lacking == {
        "partition": {
            1: "missing label: list_eval_partition.csv",
            2: "missing label: list_eval_partition.csv",
        }
    }
    assert kinds(parts) == {"malformed label row": 1}


def test_celeba_text_files_are_closed(tmp_path: Path) -> None:
    texts = {**CELEBA_TEXT, "identity_CelebA.txt": "1.jpg 7\n2.jpg \u0668\n1.jpg 9\n3.jpg\n"}
    listing = CelebA().read(celeba(tmp_path, "img_align_celeba", texts, TORCHVISION), seed=0)
    assert listing.paths == ("img_align_celeba/1.jpg",)
    wheres = {problem.where: problem.reason for problem in listing.problems}
    assert wheres["identity_CelebA.txt line 2"].startswith("malformed label row")
    assert wheres["identity_CelebA.txt line 3"] == "repeated label row: 1.jpg has two numbers"
    assert wheres["identity_CelebA.txt line 4"].startswith("malformed label row")
    (tmp_path / "list_attr_celeba.txt").write_text("1\nMale Male\n1.jpg 1 1\n")
    with pytest.raises(DataError, match="two columns named 'Male': columns 1 and 2"):
        CelebA().read(tmp_path, seed=0)
    (tmp_path / "list_attr_celeba.txt").write_bytes("1\nMale\nJosé.jpg 1\n".encode("cp1252"))
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        CelebA().read(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ("celeba/img_align_celeba", "too deep: set it to {root}/celeba"),
        ("celeba/img_align_celeba/img_align_celeba", "too deep: set it to {root}/celeba"),
        (".", "too high: set it to {root}/celeba"),
    ],
)
def test_celebas_root_may_be_off_by_one(tmp_path: Path, point: str, says: str) -> None:
    celeba(tmp_path / "celeba", "img_align_celeba/img_align_celeba", CELEBA_CSV, TORCHVISION)
    with pytest.raises(DataError) as caught:
        CelebA().read(tmp_path / point, seed=0)
    assert says.format(root=tmp_path) in caught.value.remedy


def test_celeba_still_packed_or_in_the_wild(tmp_path: Path) -> None:
    celeba(tmp_path, "Img/img_celeba", CELEBA_TEXT, DRIVE)
    with pytest.raises(DataError, match="as found in the wild"):
        CelebA().read(tmp_path, seed=0)
    (tmp_path / "Img" / "img_align_celeba.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"Unpack Img/img_align_celeba\.zip"):
        CelebA().read(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("images", "variant"),
    [
        ("lfw_home/lfw_funneled", None),
        ("lfw_funneled", None),
        ("lfw_funneled", "funneled"),
        ("lfw-deepfunneled/lfw-deepfunneled", None),
        ("lfw", "original"),
        ("lfw-py/lfw-deepfunneled", "deepfunneled"),
    ],
)
def test_lfw_without_genders(
    make_config: MakeConfig, tmp_path: Path, images: str, variant: str | None
) -> None:
    for number, name in enumerate(("Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0002", "Bo/Bo_0001")):
        picture(tmp_path / "data" / images / f"{name}.jpg", 60 * number)
    (tmp_path / "data" / images).parent.joinpath("pairs.txt").write_text("10\t300\n")
    options = {} if variant is None else {"variant": variant}
    faces = load_dataset(make_config("lfw", root=str(tmp_path / "data"), options=options), seed=0)
    assert faces.identity is not None
    assert faces.identity.tolist() == [0, 0, 1]
    assert dict(faces.attributes) == {}
    assert faces.problems == ()
    assert evaluate_attribute("identity", faces).values.tolist() == [0, 0, 1]
    with pytest.raises(DataError, match=r"no 'gender' here: male_names\.txt and female_names\.txt"):
        evaluate_attribute("gender", faces)


def test_lfw_genders_beside_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "lfw_home/lfw_funneled/Bo/Bo_0001.jpg")
    picture(tmp_path / "lfw_home/lfw_funneled/Bo/stray.jpg")
    picture(tmp_path / "lfw_home/lfw_funneled/stray_0001.jpg")
    (tmp_path / "lfw_home/male_names.txt").write_text("Bo_0001.jpg\nnobody\n")
    with pytest.raises(DataError, match=r"female_names\.txt is missing"):
        LFW().read(tmp_path, seed=0)
    (tmp_path / "lfw_home/female_names.txt").write_text("")
    listing = LFW().read(tmp_path, seed=0)
    assert listing.attributes["gender"].tolist() == [0]
    assert kinds(listing) == {"malformed name": 2, "malformed label row": 1}


def test_lfw_off_by_one_or_another_variant(tmp_path: Path) -> None:
    picture(tmp_path / "lfw_home/lfw_funneled/Bo/Bo_0001.jpg")
    with pytest.raises(DataError, match=f"too deep: set it to {tmp_path}"):
        LFW().read(tmp_path / "lfw_home/lfw_funneled", seed=0)
    with pytest.raises(DataError, match=r"Set dataset\.options\.variant: lfw_home/lfw_funneled/ is there"):
        LFW(variant="deepfunneled").read(tmp_path, seed=0)
    picture(tmp_path / "a/b/high/lfw/lfw-deepfunneled/Bo/Bo_0001.jpg")
    with pytest.raises(DataError, match=f"too high: set it to {tmp_path}/a/b/high/lfw"):
        LFW().read(tmp_path / "a/b/high", seed=0)


def fairface(
    root: Path, base: str = "", parts: tuple[str, ...] = ("train", "val"), kaggle: bool = False
) -> Path:
    for part in parts:
        picture(root / base / part / "1.jpg")
        name = f"{part}_labels.csv" if kaggle else f"fairface_label_{part}.csv"
        text = f"file,age,gender,race,service_test\n{part}/1.jpg,3-9,Male,White,True\n"
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("base", "parts", "kaggle"),
    [
        ("", ("train", "val"), False),
        ("", ("train",), False),
        ("", ("val",), False),
        ("", ("train", "val"), True),
        ("fairface-img-margin025-trainval/", ("train", "val"), False),
        ("fairface-img-margin125-trainval/", ("val",), False),
        ("FairFace/", ("train", "val"), True),
    ],
)
def test_fairface(tmp_path: Path, base: str, parts: tuple[str, ...], kaggle: bool) -> None:
    listing = FairFace().read(fairface(tmp_path, base, parts, kaggle), seed=0)
    assert listing.paths == tuple(f"{base}{part}/1.jpg" for part in parts)
    assert listing.attributes["partition"].tolist() == list(parts)
    assert listing.problems == ()
    assert listing.layout == "images in " + " and ".join(f"{base}{part}/" for part in parts)


def test_fairface_with_both_paddings(tmp_path: Path) -> None:
    for padding in ("025", "125"):
        fairface(tmp_path, f"fairface-img-margin{padding}-trainval/")
    with pytest.raises(DataError, match="holds the images several times") as caught:
        FairFace().read(tmp_path, seed=0)
    assert "dataset.options.padding to 0.25 or 1.25" in caught.value.remedy
    listing = FairFace(padding=1.25).read(tmp_path, seed=0)
    assert listing.paths[0] == "fairface-img-margin125-trainval/train/1.jpg"
    with pytest.raises(ValueError, match=r"must be 0\.25 or 1\.25"):
        FairFace(padding=0.5)
    fairface(tmp_path / "plain")
    picture(tmp_path / "plain/yolo/train/1.jpg")  # somebody's own
    assert FairFace(padding=0.25).read(tmp_path / "plain", seed=0).paths[0] == "train/1.jpg"


def test_fairface_names_what_a_part_lacks(tmp_path: Path) -> None:
    fairface(tmp_path, parts=("train",))
    (tmp_path / "fairface_label_val.csv").write_text("file,age,gender,race,service_test\n")
    listing = FairFace().read(tmp_path, seed=0)
    assert len(listing) == 1
    assert [(problem.where, problem.reason) for problem in listing.problems] == [
        ("fairface_label_val.csv", "part not read: its images (val/) are missing")
    ]
    (tmp_path / "fairface_label_train.csv").unlink()
    with pytest.raises(DataError, match=r"fairface_label_train\.csv is missing"):
        FairFace().read(tmp_path, seed=0)


def test_fairface_off_by_one(tmp_path: Path) -> None:
    fairface(tmp_path / "up" / "data" / "fairface")
    assert len(FairFace().read(tmp_path / "up" / "data", seed=0)) == 2
    for point, way in (("up", "high"), ("up/data/fairface/train", "deep")):
        with pytest.raises(DataError, match=f"too {way}: set it to {tmp_path}/up/data/fairface"):
            FairFace().read(tmp_path / point, seed=0)


def test_att_faces_and_folder_off_by_one(tmp_path: Path) -> None:
    for name in ("s1/1.pgm", "s2/1.PGM"):
        picture(tmp_path / "orl" / name)
    assert len(AttFaces().read(tmp_path / "orl", seed=0)) == 2
    for point, way in ((".", "high"), ("orl/s1", "deep")):
        with pytest.raises(DataError, match=f"too {way}: set it to {tmp_path}/orl"):
            AttFaces().read(tmp_path / point, seed=0)
    (tmp_path / "orl/labels.csv").write_text("image\ns1/1.pgm\n")
    for point, way in ((".", "high"), ("orl/s1", "deep")):
        with pytest.raises(DataError, match=f"too {way}: set it to {tmp_path}/orl"):
            Folder().read(tmp_path / point, seed=0)
    (tmp_path / "orl/labels.csv").rename(tmp_path / "orl/faces.csv")
    with pytest.raises(DataError, match=r"Set dataset\.options\.csv to faces\.csv"):
        Folder().read(tmp_path / "orl", seed=0)


def test_a_root_that_is_packed_or_misspelled(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "data" / "lfw").mkdir(parents=True)
    (tmp_path / "data" / "lfw.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="That is a file: unpack it"):
        load_dataset(make_config("lfw", root=str(tmp_path / "data" / "lfw.zip")), seed=0)
    with pytest.raises(DataError, match=f"{tmp_path}/data holds lfw"):
        load_dataset(make_config("lfw", root=str(tmp_path / "data" / "flw")), seed=0)


def test_names_that_no_file_can_have(make_config: MakeConfig, tmp_path: Path) -> None:
    for options in ({"csv": "x" * 300}, {"csv": "a\0b"}):
        with pytest.raises(DataError, match=r"cannot be looked at|is missing"):
            load_dataset(make_config("folder", root=str(tmp_path), options=options), seed=0)
    for root in ("x" * 300, "a\0b"):
        with pytest.raises(DataError, match=r"cannot be looked at|is missing"):
            load_dataset(make_config("folder", root=str(tmp_path / root)), seed=0)


MALE = "male_names.txt"


@pytest.mark.parametrize(
    ("source", "label_file"),
    [
        *((CelebA(), name) for name in CELEBA_TEXT),
        *((CelebA(), name) for name in CELEBA_CSV),
        (FairFace(), "fairface_label_train.csv"),
        (LFW(), MALE),
        (Folder(image="image_id", csv="list_attr_celeba.csv"), "list_attr_celeba.csv"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_label_file_is_read_in_known_encodings_only(
    tmp_path: Path, source: Source, label_file: str
) -> None:
    texts = CELEBA_TEXT if label_file in CELEBA_TEXT else CELEBA_CSV
    celeba(tmp_path, "img_align_celeba", texts, TORCHVISION)
    for number in (1, 2, 3):
        picture(tmp_path / f"{number}.jpg")
    fairface(tmp_path)
    picture(tmp_path / "lfw/Bo/Bo_0001.jpg")
    (tmp_path / MALE).write_text("Bo_0001.jpg\n")
    (tmp_path / "female_names.txt").write_text("Jo_0001.jpg\n")
    path = tmp_path / label_file
    plain = path.read_text()
    expected = source.read(tmp_path, seed=0)
    assert len(expected)
    for data in (
        codecs.BOM_UTF8 + plain.encode(),
        plain.encode("utf-16"),
        plain.replace("\n", "\r\n").encode(),
    ):
        path.write_bytes(data)
        listing = source.read(tmp_path, seed=0)
        assert (listing.paths, listing.problems) == (expected.paths, expected.problems)
    path.write_bytes(plain.rstrip("\n").encode() + b"\nJos\xe9_0001.jpg\n")
    line = plain.rstrip("\n").count("\n") + 2
    with pytest.raises(DataError, match=f"line {line} is not UTF-8") as caught:
        source.read(tmp_path, seed=0)
    assert caught.value.value == str(path)
    if label_file.endswith(".csv"):
        path.write_text(plain.rstrip("\n") + '\n"9.jpg,1\n' + plain)
        with pytest.raises(DataError, match=f"line {line} cannot be read: a quote that is not closed"):
            source.read(tmp_path, seed=0)
