"""The real data sets, where PRIVHIER_DATA names them; numbers as counted by others."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig, SplitsConfig
from privhier.datasets.check import check_dataset
from privhier.datasets.load import load_dataset
from privhier.datasets.near_doubles import find_near_doubles
from privhier.datasets.splits import split_dataset

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not os.environ.get("PRIVHIER_DATA"), reason="PRIVHIER_DATA is not set"),
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def config(name: str, cache: Path, **keys: object) -> DatasetConfig:
    base = {"cache": str(cache), "image_size": 16, "task": ["a"], "sensitive": ["b"]}
    return DatasetConfig.model_validate({"name": name, **base, **keys})


def test_utkface(cache: Path) -> None:
    report = check_dataset(config("utkface", cache))
    assert (report.records, report.duplicate_groups, report.duplicate_files) == (23702, 375, 765)
    assert report.conflicting_groups == 259
    assert (report.conflicts["gender"], report.conflicts["race"]) == (40, 70)
    columns = {column.name: column for column in report.columns}
    assert columns["gender"].counts == {"0 male": 12388, "1 female": 11314}
    assert columns["race"].counts["4 Others"] == 1692
    assert (columns["age"].low, columns["age"].high) == (1, 116)
    faces = load_dataset(config("utkface", cache), seed=0)
    splits = split_dataset(faces, SplitsConfig(), protocol="unknown_people", seed=0)
    assert abs(len(splits.train) - 11851) <= 1
    assert abs(len(splits.aux) - 4740.4) < 1


def test_lfw(cache: Path) -> None:
    faces = load_dataset(config("lfw", cache), seed=0)
    assert faces.identity is not None
    # Six people, one image each, have no gender: five are in both lists, one in neither.
    assert len(faces) + len(faces.problems) == 13233
    assert len(faces.problems) == 6
    people, counts = np.unique(faces.identity, return_counts=True)
    assert (len(people), counts.max()) == (5749 - 6, 530)
    known = load_dataset(config("lfw", cache, min_images_per_identity=10), seed=0)
    assert len(known) == 4324
    splits = split_dataset(known, SplitsConfig(), protocol="known_people", seed=0)
    assert known.identity is not None
    for part in (splits.train, splits.val, splits.aux, splits.test):
        assert len(np.unique(known.identity[part])) == 158


def test_att_faces(cache: Path) -> None:
    faces = load_dataset(config("att_faces", cache), seed=0)
    assert faces.identity is not None
    assert (len(faces), len(np.unique(faces.identity)), faces.problems) == (400, 40, ())


def test_planted_versions_are_found_among_real_faces(cache: Path) -> None:
    faces = load_dataset(config("att_faces", cache, image_size=64), seed=0)
    assert faces.identity is not None
    own = find_near_doubles(faces.images).rows
    assert (faces.identity[own[:, 0]] == faces.identity[own[:, 1]]).all()
    chosen = np.arange(0, 400, 5)
    planted = []
    for row in chosen.tolist():
        picture = Image.fromarray(faces.images[row].transpose(1, 2, 0))
        if row % 2:
            picture.save(stream := io.BytesIO(), "JPEG", quality=50)
            picture = Image.open(stream)
        else:
            picture = picture.resize((64, 64), Image.Resampling.BILINEAR, box=(4, 2, 62, 60))
        planted.append(np.asarray(picture).transpose(2, 0, 1))
    pairs = find_near_doubles(np.concatenate([faces.images, np.stack(planted)])).rows
    found = set(map(tuple, pairs.tolist()))
    assert sum((row, 400 + number) in found for number, row in enumerate(chosen.tolist())) >= 78
    other = [(one, two) for one, two in found if two >= 400 > one]
    assert all(faces.identity[one] == faces.identity[chosen[two - 400]] for one, two in other)


def test_mtcnn_finds_real_faces(cache: Path) -> None:
    faces = load_dataset(config("lfw", cache, crop="mtcnn", limit=20, image_size=64), seed=0)
    missed = [problem for problem in faces.problems if problem.reason.startswith("no face")]
    assert len(missed) <= 2
