"""How many records are attacked, and with how many: as configured, and no more than memory holds."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privhier.assessment import victims
from privhier.assessment.victims import bytes_of, check_auxiliary, choose_victims
from privhier.datasets.load import load_dataset
from privhier.errors import DataError
from privhier.training.prepare import prepare

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
MAP = {"model": {"bottleneck": {"kind": "none", "size": None}}}


def chosen(**changes):
    config = small_config(images=200, size=16, **changes)
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    return config, prepared, choose_victims(config, prepared)


def test_what_an_attacker_holds_of_a_record():
    raw = 4 * 3 * 16 * 16
    config, prepared, _ = chosen()
    assert bytes_of(config, prepared) == raw, "a short vector: the raw images of the reference are wider"
    alone = config.model_copy(update={"attacks": config.attacks.model_copy(update={"raw_image": False})})
    size, times = config.model.bottleneck.size, config.schedule.releases_per_record
    assert bytes_of(alone, prepared) == 4 * size * times


@pytest.mark.parametrize("changes", [{}, MAP])
def test_memory_bounds_the_records_and_the_result_says_so(monkeypatch, changes):
    config, prepared, free = chosen(**changes)
    assert free.notes == ()
    each = bytes_of(config, prepared)
    monkeypatch.setattr(victims, "VIEW_BYTES", 25 * each)
    bound = choose_victims(config, prepared)
    for name in ("test", "training", "aux"):
        whole, few = getattr(free, name), getattr(bound, name)
        assert np.isin(few, whole).all()
        assert len(few) <= 25 + 10 or len(few) == len(whole), "whole groups: not more than one above"
    assert any(note.startswith("victims: about 25 of") for note in bound.notes)
    assert any("auxiliary set: about 25 of" in note for note in bound.notes)
    monkeypatch.setattr(victims, "VIEW_BYTES", 1)
    assert len(choose_victims(config, prepared).aux) >= 20


def test_too_few_records_for_any_attacker_are_refused_before_anything_is_trained():
    config, prepared, free = chosen()
    check_auxiliary(config, prepared, free)
    few = replace(free, aux=free.aux[:19])
    with pytest.raises(
        DataError, match=r"dataset\.splits\.aux: .* leaves the attackers 19 records .*near_doubles"
    ):
        check_auxiliary(config, prepared, few)
