"""One photo in several versions: found, grouped, reported, and never cut by a split."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from privhier.assessment.claims import describe_dataset
from privhier.config import DatasetConfig, RunConfig, SplitsConfig
from privhier.datasets import near_cache, near_doubles
from privhier.datasets.base import FaceDataset
from privhier.datasets.check import check_dataset
from privhier.datasets.listing import Listing
from privhier.datasets.load import load_dataset
from privhier.datasets.near_doubles import NO_PAIRS, Pairs, compare_copies, find_near_doubles
from privhier.datasets.splits import split_dataset
from privhier.datasets.versions import LONGEST_CHAIN, equal_names, group_versions
from privhier.training.prepare import Prepared

MakeConfig = Callable[..., DatasetConfig]
SIZE = 48


def photos(count: int, side: int = 96, seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures with one bright blob in common, as faces have their oval."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    oval = 120 * np.exp(-(x**2 + 0.7 * y**2) * 2)[..., None]
    found = []
    for _ in range(count):
        noise = sum(amplitude * grown(random.normal(size=(3, grid, grid)), side) for grid, amplitude in GRIDS)
        found.append(Image.fromarray(np.clip(oval + 70 + noise, 0, 255).astype(np.uint8)))
    return found


GRIDS = ((5, 35), (9, 25), (20, 10))


def grown(grid: np.ndarray, side: int) -> np.ndarray:
    channels = [
        Image.fromarray(each.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
        for each in grid
    ]
    return np.stack([np.asarray(each) for each in channels], axis=-1)


def encoded(picture: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def padded(picture: Image.Image, share: float, color: str = "black") -> Image.Image:
    side = picture.width
    margin = round(share * side)
    wide = Image.new("RGB", (side + 2 * margin, side + 2 * margin), color)
    wide.paste(picture, (margin, margin))
    return wide


def window(picture: Image.Image, zoom: float, right: float = 0.5, down: float = 0.5) -> Image.Image:
    side = picture.width * zoom
    x, y = (picture.width - side) * right, (picture.width - side) * down
    return picture.resize((64, 64), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))


VERSIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 50": lambda picture: encoded(picture, 50),
    "quality 95": lambda picture: encoded(picture, 95),
    "half the size": lambda picture: picture.resize((picture.width // 2,) * 2),
    "padded by a tenth": lambda picture: padded(picture, 0.1),
    "padded in white": lambda picture: padded(picture, 0.2, "white"),
    "cropped by 5 %": lambda picture: window(picture, 0.95),
    "cropped by 10 %": lambda picture: window(picture, 0.9),
    "cropped by 20 %": lambda picture: window(picture, 0.8),
    "cropped at a corner": lambda picture: window(picture, 0.9, 0.0, 1.0),
    "cropped on one side": lambda picture: window(picture, 0.94, 1.0, 0.5),
    "FairFace's paddings": lambda picture: window(picture, 1.5 / 3.5),
    "brighter": lambda picture: picture.point(lambda value: min(255, round(1.1 * value + 10))),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "all at once": lambda picture: encoded(window(picture, 0.93).convert("L").convert("RGB"), 60),
}


def decoded(pictures: list[Image.Image], size: int = SIZE) -> np.ndarray:
    small = [picture.resize((size, size), Image.Resampling.BILINEAR) for picture in pictures]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in small])


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_of_a_photo_are_found(version: str) -> None:
    originals = photos(12)
    pairs = find_near_doubles(decoded([*originals, *map(VERSIONS[version], originals)]))
    assert pairs.rows.tolist() == [[number, number + 12] for number in range(12)]


@pytest.mark.parametrize("size", [16, 24, 32, 64, 112])
def test_versions_are_found_at_other_sizes(size: int) -> None:
    originals = photos(8)
    pairs = find_near_doubles(decoded([*originals, *(encoded(each, 60) for each in originals)], size))
    assert pairs.rows.tolist() == [[number, number + 8] for number in range(8)]


def test_different_photos_are_not() -> None:
    assert len(find_near_doubles(decoded(photos(400, side=48))).rows) == 0


def test_pictures_of_nothing_are_not_compared() -> None:
    flat = np.stack([np.full((3, 24, 24), level, dtype=np.uint8) for level in (0, 100, 100, 101, 255)])
    assert len(find_near_doubles(flat).rows) == 0
    assert len(find_near_doubles(flat[:0]).rows) == 0


def test_many_versions_and_many_photos_are_found_through_the_index() -> None:
    originals = photos(160, side=48)
    pairs = find_near_doubles(decoded([*originals, *(window(each, 0.92, 0.2) for each in originals)]))
    planted = {(number, number + 160) for number in range(160)}
    found = set(map(tuple, pairs.rows.tolist()))
    assert found <= planted
    assert len(found) >= 158
    copies = decoded([encoded(originals[0], quality) for quality in range(30, 96)])
    group = tied(len(copies), find_near_doubles(copies))
    assert len(set(group.tolist())) == 1


def tied(count: int, near: Pairs, photo: np.ndarray | None = None) -> np.ndarray:
    digests = np.arange(count * 32, dtype=np.int64).reshape(count, 32).astype(np.uint8)
    digests[:, :2] = np.stack([np.arange(count) // 256, np.arange(count) % 256], axis=1)
    return group_versions([f"{row}.jpg" for row in range(count)], digests, photo, near).group


def pairs_of(*rows: tuple[int, int]) -> Pairs:
    return Pairs(np.array(rows, dtype=np.int64), np.full(len(rows), 0.99, dtype=np.float32))


def test_short_chains_are_one_group_and_long_ones_are_cut() -> None:
    chain = pairs_of(*((row, row + 1) for row in range(LONGEST_CHAIN - 1)))
    assert len(set(tied(LONGEST_CHAIN + 8, chain)[:LONGEST_CHAIN].tolist())) == 1
    count = 40 * LONGEST_CHAIN
    chain = pairs_of(*((row, row + 1) for row in range(count - 1)))
    group = tied(count, chain)
    assert np.bincount(group).max() <= 3
    # A large set in which all look alike is one group all the same.
    star = pairs_of(*((0, row) for row in range(1, count)))
    assert len(set(tied(count, star).tolist())) == 1


def test_names_and_looks_tie_together() -> None:
    photo = np.array([0, 0, 1, 2, 3, 4])
    group = tied(6, pairs_of((1, 2), (4, 5)), photo)
    assert group.tolist()[:3] == [group[0]] * 3
    assert group[4] == group[5]
    assert len({group[0], group[3], group[4]}) == 3


def write(path: Path, picture: Image.Image, **keys: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **keys)


@pytest.fixture
def utkface_parts(tmp_path: Path) -> Path:
    """Sixteen photos in the wild, their crops, and Kaggle's second folder of crops."""
    root = tmp_path / "utk"
    for number, picture in enumerate(photos(16)):
        name = f"{20 + number}_{number % 2}_{number % 5}_201701161745{number:05}.jpg"
        # In the wild the face is a small part anywhere: pixels alone do not tell.
        write(root / "part1" / name, photos(1, 120, seed=100 + number)[0])
        write(root / "UTKFace" / f"{name}.chip.jpg", picture)
        write(root / "crop_part1" / f"{name}.chip.jpg", picture, quality=60)
    write(root / "UTKFace" / "20_1_0_20170116174500000.jpg.chip.jpg", photos(1, seed=9)[0])
    return root


def test_utkface_groups_by_its_names(utkface_parts: Path, make_config: MakeConfig) -> None:
    config = make_config("utkface", root=str(utkface_parts), image_size=SIZE)
    faces = load_dataset(config, seed=0)
    assert len(faces) == 49
    ages = faces.attributes["age"]
    own = np.flatnonzero((ages == 20) & (faces.attributes["gender"] == 1))
    assert len(own) == 1, "another gender under the same stamp is another photo"
    groups = {
        age: set(faces.group[(ages == age) & (np.arange(49) != own[0])].tolist()) for age in range(20, 36)
    }
    assert all(len(numbers) == 1 for numbers in groups.values())
    assert len(set().union(*groups.values(), {int(faces.group[own[0]])})) == 17
    np.testing.assert_array_equal(faces.group, faces.duplicate_group)
    for seed in range(4):
        splits = split_dataset(faces, SplitsConfig(), protocol="unknown_people", seed=seed)
        place = np.empty(49, dtype=int)
        for number, name in enumerate(("train", "val", "aux", "test")):
            place[getattr(splits, name)] = number
        assert all(len(set(place[faces.group == group])) == 1 for group in set(faces.group.tolist()))

    report = check_dataset(config)
    assert (report.duplicate_groups, report.version_groups, report.version_files) == (0, 16, 48)
    assert report.notices == {"one photo by its name": 32, "equal file name": 16}
    text = "\n".join(report.lines())
    assert (
        "photos in several versions: 16 groups that no split cuts (48 files, at most 3 of one photo)" in text
    )
    assert report.problems == {}


def write_folder(root: Path, identity: bool = False) -> None:
    rows = ["image,who,smiling"]
    for number, picture in enumerate(photos(16)):
        write(root / "first" / f"{number:02}.png", picture)
        write(root / "second" / f"{number:02}.jpg", encoded(window(picture, 0.95), 70))
        rows += [
            f"first/{number:02}.png,{number // 4},{number % 2}",
            f"second/{number:02}.jpg,{number // 4},1",
        ]
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def test_near_doubles_are_grouped_counted_and_kept(make_config: MakeConfig, tmp_path: Path) -> None:
    write_folder(tmp_path / "faces")
    config = make_config("folder", root=str(tmp_path / "faces"), image_size=SIZE)
    faces = load_dataset(config, seed=0)
    assert len(faces) == 32
    assert faces.problems == ()
    assert all(notice.reason.startswith("near-double: of first/") for notice in faces.notices)
    np.testing.assert_array_equal(faces.group[::2], faces.group[1::2])
    assert len(set(faces.group.tolist())) == 16
    assert faces.identical is not None
    assert len(set(faces.identical.tolist())) == 32
    assert check_dataset(config).notices == {"near-double": 16}


def test_known_people_do_not_share_versions(make_config: MakeConfig, tmp_path: Path) -> None:
    write_folder(tmp_path / "faces")
    options = {"identity": "who"}
    faces = load_dataset(
        make_config("folder", root=str(tmp_path / "faces"), image_size=SIZE, options=options), seed=0
    )
    assert faces.identity is not None
    assert len(set(faces.group.tolist())) == 4
    splits = split_dataset(faces, SplitsConfig(), protocol="known_people", seed=0)
    for part in (splits.train, splits.val, splits.aux, splits.test):
        assert sorted(part.tolist()) == sorted({*(part // 2 * 2).tolist(), *(part // 2 * 2 + 1).tolist()})


def test_equal_names_in_two_folders() -> None:
    notices = equal_names(["a/1.jpg", "a/2.jpg", "b/1.JPG", "c/d/1.jpg", "3.jpg"])
    assert [(notice.where, notice.reason) for notice in notices] == [
        ("b/1.JPG", "equal file name: a/1.jpg"),
        ("c/d/1.jpg", "equal file name: a/1.jpg"),
    ]


def test_pairs_are_searched_once(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "faces")
    config = make_config("folder", root=str(tmp_path / "faces"), image_size=SIZE)
    first = load_dataset(config, seed=0)
    file = next((tmp_path / "cache").glob("folder-*/near-*"))
    calls: list[int] = []

    def counted(copies: np.ndarray, progress: None) -> Pairs:
        calls.append(len(copies))
        return compare_copies(copies, progress)

    monkeypatch.setattr(near_cache, "compare_copies", counted)
    np.testing.assert_array_equal(load_dataset(config, seed=0).group, first.group)
    assert calls == []
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 2
    for damaged in (b"", whole[:200], bytes(flipped), whole + b"x"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(load_dataset(config, seed=0).group, first.group)
    assert calls == [32] * 4
    assert len(list(file.parent.iterdir())) == 5


def test_identical_files_are_compared_once(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "faces"
    picture = photos(1)[0]
    write(root / "1_0_0_1.png", picture)
    for number in range(2, 9):
        (root / f"{number}_0_0_1.png").write_bytes((root / "1_0_0_1.png").read_bytes())
    write(root / "9_0_0_1.jpg", picture, quality=60)
    compared: list[int] = []

    def counted(copies: np.ndarray, progress: None) -> Pairs:
        compared.append(len(copies))
        return compare_copies(copies, progress)

    monkeypatch.setattr(near_cache, "compare_copies", counted)
    faces = load_dataset(make_config("utkface", root=str(root), image_size=SIZE), seed=0)
    assert compared == [2]
    assert len(set(faces.group.tolist())) == 1
    assert [notice.where for notice in faces.notices] == ["9_0_0_1.jpg"]


def test_selected_rows_keep_their_photo() -> None:
    listing = Listing(("a", "b", "c"), {}, photo=np.array([4, 5, 4]))
    selected = listing.select(np.array([0, 2]))
    assert selected.photo is not None
    assert selected.photo.tolist() == [4, 4]


def test_drawn_faces_are_not_compared(make_config: MakeConfig) -> None:
    faces: FaceDataset = load_dataset(
        make_config("synthetic", image_size=16, options={"images": 40, "identities": 8}), seed=0
    )
    assert faces.notices == ()
    assert len(set(faces.duplicate_group.tolist())) == 40
    assert len(NO_PAIRS.rows) == 0


def test_versions_stand_in_the_result(make_config: MakeConfig, tmp_path: Path) -> None:
    write_folder(tmp_path / "faces")
    faces = load_dataset(make_config("folder", root=str(tmp_path / "faces"), image_size=SIZE), seed=0)
    splits = split_dataset(faces, SplitsConfig(), protocol="unknown_people", seed=0)
    prepared = SimpleNamespace(dataset=faces, data=SimpleNamespace(splits=splits, image_size=SIZE), labels={})
    config = SimpleNamespace(dataset=SimpleNamespace(identity_protocol="unknown_people"))
    facts = describe_dataset(cast(RunConfig, config), cast(Prepared, prepared))
    assert facts["notices"] == {"near-double": 16}
    assert facts["first_notices"][0]["reason"].startswith("near-double: of first/")
    assert (facts["problems"], facts["groups"]) == (0, 16)


@pytest.mark.parametrize("held", [1, 40])
def test_pairs_are_thinned_out_as_they_are_found_and_stay_the_same(monkeypatch, held):
    """Much the same pictures give millions of pairs at CelebA's size; few are held at a time."""
    originals = photos(60, side=48)
    images = decoded([*originals, *(window(each, 0.95, 0.02) for each in originals), *originals[:20]])
    whole = find_near_doubles(images)
    assert len(whole.rows) >= 60
    held_at_once: list[int] = []
    together = near_doubles._together

    def noted(found):
        held_at_once.append(sum(len(alike) for _, alike in found))
        return together(found)

    monkeypatch.setattr(near_doubles, "_together", noted)
    assert np.array_equal(find_near_doubles(images).rows, whole.rows)
    calls = len(held_at_once)
    monkeypatch.setattr(near_doubles, "HELD", held)
    thinned = find_near_doubles(images)
    assert np.array_equal(thinned.rows, whole.rows)
    assert np.array_equal(thinned.likeness, whole.likeness)
    assert len(held_at_once) > 2 * calls, "it was thinned out on the way"
