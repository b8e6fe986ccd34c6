"""CIFAR-10's experiment: what unpacks the images, and the run its labels make possible."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from importlib import util

import numpy as np
import pytest
from PIL import Image

from privhier.config import load_config
from privhier.datasets.load import load_dataset
from privhier.training.prepare import prepare


@pytest.fixture(scope="module")
def unpacking(repository):
    path = repository / "experiments" / "cifar10" / "unpack.py"
    spec = util.spec_from_file_location("cifar10_unpack", path)
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def make_zip(path, names=("cat", "ship")):
    """Twelve images of each class in the layout of the real zip; half of each class are bright."""
    draws = np.random.default_rng(0)
    rows = ["image,label,split,vehicle"]
    with zipfile.ZipFile(path, "w") as archive:
        for vehicle, name in enumerate(names):
            for number in range(12):
                base = 60 if number % 2 else 190
                pixels = draws.integers(base - 40, base + 40, (32, 32, 3), dtype=np.uint8)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "JPEG")
                archive.writestr(f"train/{name}/{number:04d}.jpg", stream.getvalue())
                rows.append(f"train/{name}/{number:04d}.jpg,{name},train,{vehicle}")
        archive.writestr("labels.csv", "\n".join(rows) + "\n")
    return path


def test_unpacked_images_make_a_run_with_a_secret_of_its_own(unpacking, repository, tmp_path):
    target = tmp_path / "images"
    assert unpacking.unpack(make_zip(tmp_path / "small.zip"), target) == 25
    assert unpacking.write_classes(target) == 24
    with (target / "classes.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["bright"] for row in rows] == ["1", "0"] * 12
    assert {row["label"] for row in rows} == {"cat", "ship"}
    for name in ("resnet18_cifar10", "vgg16_cifar10"):
        config = load_config(
            repository / "experiments" / "cifar10" / f"{name}.yaml",
            [f"dataset.root={target}", "dataset.limit=24", "dataset.cache=null"],
        )
        data = prepare(config, load_dataset(config.dataset, seed=0)).data
        assert data.task_classes == {"label": 2}
        assert data.sensitive_classes == {"bright": 2}


def test_a_member_outside_of_the_folder_is_refused_and_nothing_is_written(unpacking, tmp_path):
    path = make_zip(tmp_path / "small.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.txt", "no")
    with pytest.raises(SystemExit, match=r"\.\./outside\.txt"):
        unpacking.unpack(path, tmp_path / "images")
    assert not (tmp_path / "images").exists()
    assert not (tmp_path / "outside.txt").exists()
