"""What a release costs on the line, in words: alone, and with what its messages carry beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from privhier.evaluation.flat import result_metrics
from privhier.evaluation.result import Result
from privhier.report.summary import summarize, uplink_text

EXAMPLE = Path(__file__).parents[1] / "made_up" / "example_result.json"


def result(alone: float | None, **release: object) -> Result:
    plain = Result.read(EXAMPLE)
    up = plain.uplink.model_copy(
        update={"payload_bytes_per_record": alone, "bytes_per_record": 7.31, "releases_per_record": 2}
    )
    return plain.model_copy(update={"uplink": up, "release": {**plain.release, **release}})


@pytest.mark.parametrize(
    ("alone", "release", "said"),
    [
        (0.375, {"letters": 8}, "3 bits of letters a release, 7.31 bytes as sent"),
        (1024.0, {}, "1024 bytes of values a release, 7.31 bytes as sent"),
        (None, {}, "7.31 bytes a release as sent; 2 releases a record"),  # an old result
    ],
)
def test_payload_and_overhead_are_told_apart(alone, release, said):
    found = result(alone, **release)
    assert said in uplink_text(found)
    assert f"uplink: {uplink_text(found)}" in list(summarize(found))
    metrics = result_metrics(found)
    assert metrics["uplink/bytes_per_record"] == 7.31
    assert metrics.get("uplink/payload_bytes_per_record") == alone
