"""The medical recipe: drawn scans of 16 bits through the folder data set, from the script to the report."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import privhier as ph
from privhier.cli.main import main
from privhier.config.data import DatasetConfig
from privhier.datasets.check import check_dataset

SMALLER = {
    "dataset.image_size": 32,
    "schedule": {"pretrain_epochs": 1, "cloud_epochs": 1},
    "attacks.attribute": [{"name": "table"}],
    "attacks.adaptive": False,
    "attacks.reconstruction": [],
    "evaluation.bootstrap": 100,
    "tracking.enabled": False,
    "runtime": {"device": "cpu", "threads": 1},
}


@pytest.fixture(scope="module")
def recipe(repository) -> Path:
    return repository / "configs" / "medical_drawn.yaml"


@pytest.fixture(scope="module")
def draw(repository):
    return runpy.run_path(str(repository / "experiments" / "medical_drawn" / "drawn.py"))["draw"]


@pytest.fixture(scope="module")
def scans(draw, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scans"
    draw(folder, patients=80, size=32, seed=0, tied=0.3)
    return folder


def table(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:]]


def test_scans_have_16_bits_and_are_drawn_alike_again(draw, scans, tmp_path):
    draw(tmp_path / "again", patients=80, size=32, seed=0, tied=0.3)
    rows = table(scans)
    assert rows == table(tmp_path / "again")
    assert len(rows) == 240
    for name, *_ in rows[:6]:
        with Image.open(scans / name) as picture:
            assert picture.mode.startswith("I")
            values = np.asarray(picture)
        assert 255 < values.max() <= 65535
        assert len(np.unique(values)) > 256, "more than 8 bits of them are used"
        assert (scans / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(FileExistsError):
        draw(scans, patients=1, size=32, seed=0, tied=0.3)


def test_finding_and_site_are_tied_as_asked(draw, tmp_path):
    draw(tmp_path / "tied", patients=200, size=16, seed=1, tied=0.8)
    draw(tmp_path / "apart", patients=200, size=16, seed=1, tied=0.0)
    found = {}
    for name in ("tied", "apart"):
        columns = np.array([(row[2] == "1", row[4] == "b") for row in table(tmp_path / name)])
        found[name] = float(np.corrcoef(columns.T)[0, 1])
    assert 0.65 < found["tied"] < 0.95
    assert abs(found["apart"]) < 0.2


def test_every_scan_is_read_and_no_two_patients_are_taken_for_one(scans, recipe, tmp_path):
    section = ph.load_config(recipe, {"dataset.root": str(scans)}).dataset
    options = section.model_dump() | {"cache": str(tmp_path / "cache")}
    report = check_dataset(DatasetConfig.model_validate(options))
    assert (report.records, report.identities, report.problems) == (240, 80, {})
    assert [column.name for column in report.columns] == ["finding", "sex", "site"]
    assert report.version_groups == 0
    assert "near-doubles are not looked for" in report.layout
    sought = options | {"options": {**section.options, "near_doubles": True}}
    assert check_dataset(DatasetConfig.model_validate(sought)).version_groups > 5, "what it is there for"


@pytest.mark.slow
def test_the_recipe_runs_to_its_report(scans, recipe, tmp_path, capsys):
    own = {"dataset.root": str(scans), "dataset.cache": str(tmp_path / "cache")}
    done = ph.run(recipe, SMALLER | own, out=tmp_path / "run", progress=False)
    assert set(done.result.leakage) == {"sex", "site"}
    site = done.result.leakage["site"]
    assert site.floor is not None, "how much of the site the finding gives away by itself"
    assert done.result.dataset["people"] == 80
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png" not in page, "no picture of any patient"
    moved = tmp_path / "elsewhere"
    scans_now = tmp_path / "data"
    (tmp_path / "run").rename(moved)
    scans_now.symlink_to(scans)
    with pytest.raises(SystemExit) as ended:
        main(["attack", str(moved), "--add", "mlp,epochs=1,trials=0", f"dataset.root={scans_now}"])
    assert ended.value.code in (0, None)
    assert "added: mlp" in capsys.readouterr().out
