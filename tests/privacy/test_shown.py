"""What is printed of a guarantee never says more than was proven."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from privhier.audit.row import AuditRow
from privhier.evaluation.result import GuaranteeRow, UplinkTotals
from privhier.privacy.composition import ReleaseAccount, Responses, StepAccount, Steps, at_least_0, compose
from privhier.privacy.guarantees import write_guarantees
from privhier.privacy.shown import claim, lower_bound
from privhier.report.page import format_ceiling, format_epsilon
from privhier.report.summary import summarize

RNG = np.random.default_rng(0)
VALUES = [
    *np.exp(RNG.uniform(-25, 12, 3000)).tolist(),
    *(RNG.integers(0, 100_000, 1000) / 1000).tolist(),
    *(k / 100 + step for k in (1, 7, 58, 100, 799, 1000) for step in (0.0, 1e-17, 1e-12, -1e-12)),
    37.62246, 821.4529, 0.0, 9.9999999, 0.99999999,
]  # fmt: skip
WAYS = [{"digits": 3}, {"digits": 4}, {"digits": 6}, {"decimals": 2}, {"decimals": 3}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_claim_read_back_is_never_below_and_a_lower_bound_never_above(way):
    for value in VALUES:
        up, down = float(claim(value, **way)), float(lower_bound(value, **way))
        assert down <= value <= up
        places = way.get("decimals")
        last = 10.0**-places if places else 10.0 ** (np.floor(np.log10(value or 1)) + 1 - way["digits"])
        assert up - value < last * 1.0001
        assert value - down < last * 1.0001


@pytest.mark.parametrize("value", [0.3, 0.1, 8.0, 1.23, 0.58, 1e-5, 821.5])
def test_a_number_that_is_printed_exactly_stays_as_it_is(value):
    assert float(claim(value)) == float(lower_bound(value)) == value
    assert claim(value) == f"{value:.4g}"


def test_the_forms():
    assert [claim(v) for v in (37.62246, 821.4529, float("inf"), 123456.0)] == [
        "37.63", "821.5", "inf", "1.235e+05",
    ]  # fmt: skip
    assert claim(-0.2, decimals=2) == "-0.20"
    assert lower_bound(9.9999, 3) == "9.99"
    assert claim(9.9951, 3) == "10"


@pytest.mark.parametrize("shown", [format_epsilon, format_ceiling], ids=["epsilon", "ceiling"])
def test_the_reports_filters_round_up(shown):
    for value in VALUES:
        assert float(shown(value)) >= value


def test_audit_lines_and_summaries_round_each_its_way():
    for value in VALUES[:300]:
        if not 1e-6 < value < 1e4:
            continue
        common = {"name": "n", "what": "w", "adjacency": "a", "refuted": False, "delta": 1e-5}
        row = AuditRow(claimed_epsilon=value, lower_95=value, **common)
        found = re.search(r"claimed epsilon (\S+) at delta 1e-05, at least (\S+)", row.line())
        assert found is not None
        assert float(found[2]) <= value <= float(found[1])


def test_the_summary_rounds_up(result_with_guarantee):
    for value in (821.4529, 37.62246, 4.330001):
        line = next(line for line in summarize(result_with_guarantee(value)) if line.startswith("guarantee"))
        found = re.search(r"epsilon (\S+) at delta (\S+)", line)
        assert found is not None
        assert float(found[1]) >= value
        assert float(found[2]) >= 1.23456789e-6


@pytest.fixture
def result_with_guarantee():
    """Just what the summary reads of guarantees."""

    def build(epsilon: float):
        row = GuaranteeRow(
            name="g", adversary="a", adjacency="b", unit="record", epsilon=epsilon, delta=1.23456789e-6,
            covers=[], does_not_cover=[], note="",
        )  # fmt: skip
        names = ("utility", "leakage", "reconstruction", "property_inference", "references")
        empty = {name: {} for name in names}
        up = UplinkTotals(bytes_per_record=7.0, releases_per_record=1, total_bytes=7)
        more = {"membership": None, "warnings": [], "release": {}, "uplink": up, "additions": []}
        return SimpleNamespace(**empty, **more, guarantees=[row])

    return build


# Below 0


def test_no_conversion_gives_a_negative_epsilon():
    """Multiplier 5, rate 0.02, ten steps, delta 0.05: Opacus' accountant says -0.04."""
    steps = StepAccount((Steps(5.0, 0.02, 10),))
    for adjacency in ("add_remove", "replace_one"):
        assert steps.epsilon(0.05, adjacency) == 0
    assert steps.pld_epsilon(0.05) == 0
    assert compose(steps, ReleaseAccount(), "none", Responses(), 0.05) == 0
    assert at_least_0(-0.04) == 0
    assert at_least_0(float("nan")) == float("inf")


def test_no_row_of_such_a_run_has_a_negative_epsilon():
    steps = StepAccount((Steps(5.0, 0.02, 10),))
    own = {"train": ReleaseAccount(1, (2 / 100.0) ** 2, 2 / 100.0)}
    rows = write_guarantees(
        own, steps=steps, responses=Responses(), mechanism="gaussian", noise_source="system", delta=0.05,
        largest_person={"train": 2}, labels_in_clear=True, also_not_covered=[],
    )  # fmt: skip
    numbers = [row.epsilon for row in rows]
    assert len(numbers) > 4
    assert all(number is not None and number >= 0 for number in numbers)
