from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets.check import check_dataset
from privhier.datasets.load import build_source, load_dataset
from privhier.errors import ConfigError, DataError, UnknownNameError

MakeConfig = Callable[..., DatasetConfig]


def faces_of(make_config: MakeConfig, seed: int = 0, **keys: object) -> np.ndarray:
    identity = load_dataset(
        make_config("synthetic", image_size=16, options={"images": 100, "identities": 20}, **keys), seed=seed
    ).identity
    assert identity is not None
    return identity


def test_limit_keeps_whole_people(make_config: MakeConfig) -> None:
    kept = faces_of(make_config, limit=33)
    people, counts = np.unique(kept, return_counts=True)
    assert counts.tolist() == [5] * len(people)
    assert len(kept) == 35
    np.testing.assert_array_equal(kept, faces_of(make_config, limit=33))
    assert set(people) != set(faces_of(make_config, limit=33, seed=1).tolist())


def test_limit_decodes_only_what_it_keeps(make_config: MakeConfig, utkface_root: Path) -> None:
    done: list[int] = []
    config = make_config("utkface", root=str(utkface_root), limit=5)
    faces = load_dataset(config, seed=0, progress=lambda what, now, total: done.append(total))
    assert len(faces) == 5
    assert set(done) == {5}
    everything = load_dataset(config.model_copy(update={"limit": None}), seed=0)
    rows = [int(np.flatnonzero(everything.attributes["age"] == age)[0]) for age in faces.attributes["age"]]
    np.testing.assert_array_equal(faces.images, everything.images[rows])


def test_people_with_few_images_are_dropped(make_config: MakeConfig, tmp_path: Path) -> None:
    root = tmp_path / "att"
    for person, count in ((1, 3), (2, 1), (3, 2)):
        (root / f"s{person}").mkdir(parents=True)
        for number in range(count):
            Image.new("L", (9, 11), 40 * person + number).save(root / f"s{person}" / f"{number}.pgm")
    faces = load_dataset(make_config("att_faces", root=str(root), min_images_per_identity=2), seed=0)
    assert faces.identity is not None
    assert faces.identity.tolist() == [1, 1, 1, 3, 3]
    with pytest.raises(DataError, match="no usable image"):
        load_dataset(make_config("att_faces", root=str(root), min_images_per_identity=4), seed=0)


def test_min_images_needs_people(make_config: MakeConfig, utkface_root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_dataset(make_config("utkface", root=str(utkface_root), min_images_per_identity=2), seed=0)
    assert caught.value.key == "dataset.min_images_per_identity"


def test_root_from_the_environment(
    make_config: MakeConfig, utkface_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRIVHIER_DATA", raising=False)
    with pytest.raises(DataError, match="PRIVHIER_DATA"):
        load_dataset(make_config("utkface"), seed=0)
    utkface_root.rename(utkface_root.parent / "UTKFace")
    monkeypatch.setenv("PRIVHIER_DATA", str(utkface_root.parent))
    assert len(load_dataset(make_config("utkface"), seed=0)) == 12


def test_unknown_name_and_options_are_explained(make_config: MakeConfig) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean celeba"):
        build_source(make_config("celebA"))
    with pytest.raises(ConfigError, match="Did you mean identities") as caught:
        build_source(make_config("synthetic", options={"identites": 3}))
    assert caught.value.key == "dataset.options.identites"
    with pytest.raises(ConfigError) as caught:
        build_source(make_config("synthetic", options={"images": "many"}))
    assert caught.value.key == "dataset.options.images"


def test_report_counts_copies_with_other_labels(make_config: MakeConfig, utkface_root: Path) -> None:
    first, second = sorted(utkface_root.iterdir())[:2]
    (utkface_root / "90_0_0_2017.jpg.chip.jpg").write_bytes(first.read_bytes())  # 20_0_0, aged
    (utkface_root / ("21_1_1_2018.jpg.chip.jpg")).write_bytes(second.read_bytes())  # the same labels
    report = check_dataset(make_config("utkface", root=str(utkface_root)))

    assert (report.records, report.duplicate_groups, report.duplicate_files) == (14, 2, 4)
    assert report.conflicting_groups == 1
    assert report.conflicts == {"age": 1, "gender": 0, "race": 0}
    gender = next(column for column in report.columns if column.name == "gender")
    assert gender.counts == {"0 male": 7, "1 female": 7}
    assert any("14 images at 24x24, no identities" in line for line in report.lines())


def test_report_shows_what_a_run_would_say_of_its_attributes(
    make_config: MakeConfig, utkface_root: Path
) -> None:
    config = make_config("utkface", root=str(utkface_root), task=["gender"], sensitive=["gender==0", "mood"])
    lines = check_dataset(config).lines()
    assert "attribute gender: male: 6; female: 6" in lines
    assert "attribute mood: refused: utkface has no column 'mood'" in lines
    assert any(
        line.startswith("attribute gender, gender==0: refused: tell the same on all 12 records")
        for line in lines
    )
