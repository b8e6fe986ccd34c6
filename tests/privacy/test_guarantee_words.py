"""What the guarantee table's words promise: no row says more than its number holds."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount, Steps
from privhier.privacy.guarantee import Guarantee
from privhier.privacy.guarantees import CURIOUS_CLOUD, OWN_RELEASES, write_guarantees

POISSON = StepAccount((Steps(2.0, 0.1, 50), Steps(2.0, 1.0, 1)))


@cache
def rows_of(*, steps=POISSON, answers=((0.7, 2),), source: str = "system") -> dict[str, Guarantee]:
    account = ReleaseAccount(2, 2 * (2 / 8.0) ** 2, 2 * 2 / 8.0)
    rows = write_guarantees(
        {"train": account, "test": account}, steps=steps, responses=Responses(answers), mechanism="gaussian",
        noise_source=source, delta=1e-6, largest_person={"train": 4, "test": 3}, labels_in_clear=not answers,
        also_not_covered=[],
    )  # fmt: skip
    return {row.name: row for row in rows}


def test_every_replace_one_row_of_dp_sgd_says_what_its_epsilon_rests_on():
    rows = rows_of()
    for name in (CURIOUS_CLOUD, "training records through the edge's weights, replace-one"):
        assert rows[name].epsilon is not None
        assert any("worst pair" in line for line in rows[name].does_not_cover), name


def test_own_release_rows_cover_no_cloud_tails():
    """A tail is computed from everybody's releases."""
    own = [row for name, row in rows_of().items() if name.startswith("own releases")]
    assert len(own) == 3
    for row in own:
        assert row.epsilon is not None
        for word in ("tail", "attack", "decoder"):
            assert not any(word in line for line in row.covers), row.name
        assert any("cloud tails" in line for line in row.does_not_cover), row.name


def test_a_persons_own_releases_name_the_randomized_labels_beside_them():
    rows = rows_of()
    train = rows["own releases of one person, train records"]
    assert any("randomized task labels" in line and "2.8 more for 4" in line for line in train.does_not_cover)
    assert any("randomized task labels" in line for line in rows[OWN_RELEASES].does_not_cover)
    test = rows["own releases of one person, test records"]
    assert not any("randomized" in line for line in test.does_not_cover)
    clear = rows_of(answers=())["own releases of one person, train records"]
    assert not any("randomized" in line for line in clear.does_not_cover)


def test_seeded_rows_say_how_soon_noise_repeats_and_system_rows_need_not():
    rows = [row for row in rows_of(source="seeded").values() if row.epsilon is not None]
    assert len(rows) > 5
    for row in rows:
        assert "void against anyone who knows the seed" in row.note
        assert "32-bit generator" in row.note
        assert "30,000 batches" in row.note
    assert not any("generator" in row.note for row in rows_of().values())


def test_the_birthday_number_is_right():
    """Two of 30,000 seeds of 32 bits agree in one run of ten; torch's CPU generator holds no more bits."""
    n = 30_000
    assert 1 - math.exp(-n * (n - 1) / 2 / 2**32) == pytest.approx(0.1, abs=0.001)
    low, high = (torch.randn(4, generator=torch.Generator().manual_seed(s)) for s in (5, 5 + 2**32))
    assert torch.equal(low, high)


def test_the_order_of_records_is_named_as_public():
    rows = rows_of()
    assert all(any("order in joint epochs" in line for line in row.does_not_cover) for row in rows.values())
    words = rows["training records through the edge's weights, add-remove"].adjacency
    assert "joint epochs and in the order of releases left empty" in words
