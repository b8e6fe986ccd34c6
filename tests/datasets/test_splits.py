from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from privhier.config import SplitsConfig
from privhier.datasets.base import FaceDataset, Splits
from privhier.datasets.splits import check_disjoint, split_dataset
from privhier.errors import DataError

SHARES = SplitsConfig()
NAMES = ("train", "val", "aux", "test")


def parts(splits: Splits) -> dict[str, np.ndarray]:
    return {name: getattr(splits, name) for name in NAMES}


def lfw_like(rng: np.random.Generator) -> list[int]:
    sizes = [530, 236, 144, 121, 109, *rng.integers(2, 80, 60), *([1] * 2000)]
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()


def test_unknown_people_never_share_a_person(make_faces: Callable[..., FaceDataset]) -> None:
    faces = make_faces(identity=lfw_like(np.random.default_rng(0)))
    splits = parts(split_dataset(faces, SHARES, protocol="unknown_people", seed=3))

    assert faces.identity is not None
    owner: dict[int, str] = {}
    for name, rows in splits.items():
        assert np.array_equal(rows, np.unique(rows))
        for person in np.unique(faces.identity[rows]).tolist():
            assert owner.setdefault(person, name) == name
        assert len(rows) / len(faces) == pytest.approx(getattr(SHARES, name), abs=0.005)
    assert sum(map(len, splits.values())) == len(faces)


def test_large_groups_reach_every_split(make_faces: Callable[..., FaceDataset]) -> None:
    identity = [person for person in range(40) for _ in range(20)] + list(range(40, 840))
    faces = make_faces(identity=identity)
    for rows in parts(split_dataset(faces, SHARES, protocol="unknown_people", seed=0)).values():
        people = np.array(identity)[rows]
        assert 0.2 < (people < 40).mean() < 0.8


def test_shares_are_exact_without_groups(make_faces: Callable[..., FaceDataset]) -> None:
    splits = parts(split_dataset(make_faces(count=1000), SHARES, protocol="unknown_people", seed=0))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 500,
        "val": 100,
        "aux": 200,
        "test": 200,
    }


def test_duplicates_tie_people_together_in_chains(make_faces: Callable[..., FaceDataset]) -> None:
    # Person 0 shares a file with person 1, and person 1 another one with person 2.
    identity = [0, 0, 1, 1, 2, 2, *range(3, 40)]
    duplicate = [0, 1, 1, 2, 2, 3, *range(4, 41)]
    faces = make_faces(identity=identity, duplicate=duplicate)
    for seed in range(8):
        place = np.empty(len(faces), dtype=int)
        for number, rows in enumerate(
            parts(split_dataset(faces, SHARES, protocol="unknown_people", seed=seed)).values()
        ):
            place[rows] = number
        assert len(set(place[:6].tolist())) == 1


@pytest.mark.parametrize("protocol", ["unknown_people", "known_people"])
def test_the_seed_decides(make_faces: Callable[..., FaceDataset], protocol: str) -> None:
    faces = make_faces(identity=[person for person in range(30) for _ in range(10)])
    one, again, other = (
        split_dataset(faces, SHARES, protocol=protocol, seed=seed).train.tolist() for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_known_people_have_photos_everywhere(make_faces: Callable[..., FaceDataset]) -> None:
    rng = np.random.default_rng(1)
    sizes = [530, 100, *rng.integers(10, 30, 60)]
    identity = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    faces = make_faces(identity=identity.tolist())
    splits = parts(split_dataset(faces, SHARES, protocol="known_people", seed=0))
    for name, rows in splits.items():
        share = getattr(SHARES, name)
        counts = np.bincount(identity[rows], minlength=len(sizes))
        assert (counts >= 1).all()
        assert (np.abs(counts - share * np.array(sizes)) <= 2).all()
        assert len(rows) / len(faces) == pytest.approx(share, abs=0.01)


def test_known_people_with_few_photos_are_in_aux_and_elsewhere(
    make_faces: Callable[..., FaceDataset],
) -> None:
    identity = np.repeat(np.arange(40), [2] * 20 + [3] * 10 + [4] * 10)
    faces = make_faces(identity=identity.tolist())
    splits = parts(split_dataset(faces, SHARES, protocol="known_people", seed=0))
    in_split = {name: set(identity[rows].tolist()) for name, rows in splits.items()}
    assert in_split["aux"] == set(range(40))
    assert in_split["train"] | in_split["val"] | in_split["test"] == set(range(40))
    assert all(set(range(30, 40)) <= people for people in in_split.values())


def test_known_people_keep_duplicates_whole(make_faces: Callable[..., FaceDataset]) -> None:
    identity = [person for person in range(10) for _ in range(8)]
    duplicate = [row - row % 2 for row in range(80)]
    duplicate[9] = 0  # the same file under two people's names
    faces = make_faces(identity=identity, duplicate=duplicate)
    place = np.empty(80, dtype=int)
    for number, rows in enumerate(
        parts(split_dataset(faces, SHARES, protocol="known_people", seed=0)).values()
    ):
        place[rows] = number
    for group in set(duplicate):
        assert len(set(place[np.array(duplicate) == group].tolist())) == 1


@pytest.mark.parametrize(
    ("identity", "protocol", "key"),
    [
        ([0, 0, 1, 1, 2, 2], "unknown_people", "dataset.splits"),
        (None, "known_people", "dataset.identity_protocol"),
        ([0, 0, 1], "known_people", "dataset.min_images_per_identity"),
        ([0, 0, 1, 1], "known_people", "dataset.splits.val"),
    ],
)
def test_too_little_to_split(
    make_faces: Callable[..., FaceDataset], identity: list[int] | None, protocol: str, key: str
) -> None:
    faces = make_faces(identity=identity, count=6)
    with pytest.raises(DataError) as caught:
        split_dataset(faces, SHARES, protocol=protocol, seed=0)
    assert caught.value.key == key


def test_four_groups_make_four_splits(make_faces: Callable[..., FaceDataset]) -> None:
    faces = make_faces(identity=[0] * 50 + [1, 2, 3])
    for seed in range(5):
        splits = parts(split_dataset(faces, SHARES, protocol="unknown_people", seed=seed))
        assert all(len(rows) for rows in splits.values())


def test_a_cut_group_is_caught(make_faces: Callable[..., FaceDataset]) -> None:
    faces = make_faces(identity=[person for person in range(20) for _ in range(3)])
    splits = split_dataset(faces, SHARES, protocol="unknown_people", seed=0)
    train, test = splits.train.copy(), splits.test.copy()
    train[0], test[0] = test[0], train[0]
    with pytest.raises(DataError, match="share the group"):
        check_disjoint(faces, replace(splits, train=train, test=test), protocol="unknown_people")
    with pytest.raises(DataError, match="exactly one split"):
        check_disjoint(faces, replace(splits, train=splits.train[1:]), protocol="unknown_people")
