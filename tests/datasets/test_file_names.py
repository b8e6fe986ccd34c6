"""File names that are not UTF-8, or would speak to a terminal: read, and shown escaped wherever they go."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.assessment.claims import describe_dataset
from privhier.config import DatasetConfig, load_config
from privhier.datasets.base import Problem
from privhier.datasets.check import check_dataset
from privhier.datasets.load import load_dataset
from privhier.errors import ConfigError, DataError, printable
from privhier.training.prepare import prepare

MakeConfig = Callable[..., DatasetConfig]

BROKEN = [b"33_0_0_\xe9\x1b[31m.jpg", b"bad\xff\nname.jpg"]
SHOWN = [r"33_0_0_\xe9\x1b[31m.jpg", r"bad\xff\nname.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder, itself not UTF-8, of pictures half of which are not either, and two broken ones."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(80):
        stamp = os.fsdecode(b"\xe92017") if number % 2 else "2017"
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        name = f"{20 + number % 30}_{number % 2}_{number // 2 % 5}_{stamp}{number}.jpg"
        Image.fromarray(pixels).save(folder / name)
    for broken in BROKEN:
        (folder / os.fsdecode(broken)).write_bytes(b"no picture")
    return folder


def test_printable() -> None:
    assert printable("caf\u00e9 \u732b.jpg") == "caf\u00e9 \u732b.jpg"
    assert printable("a\udcff\x1b[2J\u202e\ud800") == r"a\xff\x1b[2J\u202e\ud800"
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"
    assert printable(printable("caf\udce9")) == r"caf\xe9"
    assert Problem("caf\udce9", "is caf\udce9") == Problem(r"caf\xe9", r"is caf\xe9")
    error = DataError(key="k\udce9", value="\udce9", rule="no \udce9 is left", remedy="Rename \udce9")
    assert str(error).encode().decode() == r"k\xe9: '\udce9' - no \xe9 is left. Rename \xe9"


def test_such_names_are_read_reported_and_cached(
    make_config: MakeConfig, root: Path, repository: Path
) -> None:
    config = make_config("utkface", root=str(root), task=["gender"], sensitive=["race>1"], image_size=16)
    first, second = (load_dataset(config, seed=0) for _ in range(2))
    assert len(first) == 80
    assert first.fingerprint == second.fingerprint
    assert first.problems == second.problems
    assert sorted(problem.where for problem in first.problems) == SHOWN

    run = load_config(repository / "configs/debug.yaml").model_copy(update={"dataset": config})
    stored = json.dumps(describe_dataset(run, prepare(run, first)), ensure_ascii=False).encode()
    assert SHOWN[0] in json.loads(stored)["first_problems"][1]["where"]
    lines = "\n".join(check_dataset(config).lines())
    assert all(name in lines.encode().decode() for name in SHOWN)


def test_an_error_that_names_one_can_be_printed(make_config: MakeConfig, root: Path) -> None:
    for path in root.iterdir():
        if path.name[0] != "b":
            path.unlink()
    with pytest.raises(DataError, match="no usable image is left") as caught:
        load_dataset(make_config("utkface", root=str(root)), seed=0)
    assert SHOWN[1] in str(caught.value).encode().decode()


def test_a_configuration_is_text(repository: Path) -> None:
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        load_config(repository / "configs/debug.yaml", ["dataset.root=caf\udce9"])
    assert caught.value.key == "dataset.root"
