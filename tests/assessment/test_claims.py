"""A run's warnings and its rows: they agree, and say what a reader must know before quoting a number."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from privhier.assessment.claims import guarantee_rows, run_warnings
from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.privacy.guarantees import OWN_RELEASES
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import ReleaseMechanism
from privhier.training.prepare import Prepared, prepare

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
MECHANISM = ReleaseMechanism("gaussian", 1.0, 1.0)


def make_config(**more) -> RunConfig:
    return small_config(
        images=200, size=16, epochs=(1, 1, 0), **{"release": {"mechanism": "gaussian", "sigma": 1.0}, **more}
    )


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    config = make_config()
    return prepare(config, load_dataset(config.dataset, seed=config.seed))


def rows(config: RunConfig, prepared: Prepared, folder: Path):
    ledger = Ledger(folder / "ledger.jsonl")
    n = len(prepared.data.splits.train)
    ledger.charge("train", n, "joint", 0, MECHANISM, config.privacy.noise_source)
    return guarantee_rows(config, prepared, ledger)


def test_under_batchnorm_warning_and_row_say_the_same(prepared, tmp_path):
    config = make_config(model={"norm": "batch"})
    (warning,) = (text for text in run_warnings(config, prepared, MECHANISM) if "BatchNorm" in text)
    own = next(row for row in rows(config, prepared, tmp_path) if row.name == OWN_RELEASES)
    (line,) = (text for text in own.does_not_cover if "BatchNorm" in text)
    assert own.epsilon is not None
    assert warning.startswith(line)
    assert "no release guarantee covers" not in warning
    assert "own-release rows bind" in warning


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.09, None), (0.11, "not well below 1/n"), (0.99999, "probability 1"), (1, "not below 1/n")],
)
def test_a_delta_that_is_not_well_below_one_over_n_is_warned_of(prepared, share, words):
    n = len(prepared.data.splits.train)
    config = make_config(privacy={"delta": share / n})
    found = [text for text in run_warnings(config, prepared, MECHANISM) if "delta" in text]
    assert bool(found) == (words is not None)
    assert words is None or words in found[0]
    assert not [t for t in run_warnings(make_config(), prepared, MECHANISM) if "delta" in t]


def test_pictures_in_the_report_are_listed_unless_left_out(prepared, tmp_path):
    for number, (report, listed) in enumerate((("all", True), ("none", False))):
        (tmp_path / str(number)).mkdir()
        config = make_config(report={"pictures": report})
        for row in rows(config, prepared, tmp_path / str(number)):
            assert any("pictures of test victims" in line for line in row.does_not_cover) == listed
    (tmp_path / "attackless").mkdir()
    without = make_config(attacks={"reconstruction": []})
    assert not any("pictures" in str(row) for row in rows(without, prepared, tmp_path / "attackless"))


def test_a_noise_seed_of_its_own_is_listed_with_what_remains_of_it(prepared, tmp_path):
    config = make_config(privacy={"noise_seed": 5})
    for row in rows(config, prepared, tmp_path):
        assert any("config_hash is a hash of it" in line for line in row.does_not_cover)
    assert np.all([("noise_seed" not in str(row)) for row in guarantee_rows(
        make_config(), prepared, Ledger(tmp_path / "ledger.jsonl"))])  # fmt: skip
