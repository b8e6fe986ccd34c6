"""A plan for a run of letters: bytes of packed letters, stages that take them, baselines that cannot."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from privhier.planner.line import Link
from privhier.planner.plan import make_plan
from privhier.planner.profile import profile
from privhier.planner.stages import Records
from privhier.planner.text import lines, tables
from privhier.planner.timing import TimingJob
from privhier.planner.timing_process import Side
from privhier.uplink.codec import ReleaseMessage, encode
from privhier.uplink.sizes import ReleaseFormat

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
LETTERS = {"kind": "letters", "size": 2, "letters": 300, "groups": 3}


@pytest.mark.parametrize(
    ("release", "letters"),
    [({"mechanism": "randomized_response", "target_epsilon": 8.0}, {"fit": "kmeans"}),
     ({"mechanism": "none"}, {"fit": "learned"})],
)  # fmt: skip
def test_every_cut_and_every_alternative_is_timed_and_counted(release, letters):
    config = small_config(
        "plan", size=16, epochs=(1, 0, 2), release=release, model={"bottleneck": {**LETTERS, **letters}}
    )
    job = TimingJob(config, {"smiling": 2}, {"male": 2}, 1)
    found = profile(job, edge=Side(1), cloud=Side(1), together=False, cuts=["stage1", "stage3"])
    assert list(found.cuts) == ["stage1", "stage3"]
    for cut in found.cuts.values():
        assert (cut.form.shape, cut.form.wire, cut.form.letters) == ((3,), "letters", 300)
        for times in (cut.edge, cut.cloud):
            assert all(0 < value < 10 for value in vars(times).values()), times
    records = Records(train=640, val=64, test=64, batch_size=32)
    plan = make_plan(config, found, records, Link(5e6))
    sizes = {row.forecast.up_bytes for row in plan.rows if row.schedule == config.schedule}
    assert sizes == {sum(_sent(split, n, rows) for split, n, rows in _messages(records))}
    split = [row for name, row in plan.alternatives if name]
    assert [row.regime for row in split] == ["split learning"] * 2
    values = ReleaseFormat((6,), "float32", 1)
    assert split[0].down_bytes == 2 * 20 * values.bytes_of(32, phase="joint")
    refused = {row.refused for row in plan.rows if not row.schedule.pretrain_epochs}
    assert all("pretrain_epochs must be at least 1" in why for why in refused) or letters["fit"] == "learned"
    assert (refused == {""}) == (letters["fit"] == "learned")
    assert plan.best is not None
    text = "\n".join(lines(plan))
    assert "a letter has no gradient" in text.lower()
    (column,) = [c for c in tables(plan)[0].columns if c.header == "release"]
    assert list(column.cells) == ["3 of 300 letters"] * 2


def _messages(records: Records):
    yield from (("train", n, rows) for n, rows in enumerate((256, 256, 128)))
    yield "val", 0, records.val


def _sent(split: str, batch: int, rows: int) -> int:
    message = ReleaseMessage(
        run_id="0" * 16,
        split=split,
        phase="cloud",
        epoch=0,
        batch=batch,
        records=np.arange(rows),
        payload=np.zeros((rows, 3), dtype=np.int64),
        task_labels=np.zeros((rows, 1), dtype=np.int64) if split == "train" else None,
        wire="letters",
        letters=300,
    )
    return len(encode(message))


@pytest.mark.parametrize(
    ("form", "alone"),
    [
        (ReleaseFormat((1,), "letters", letters=2), 1 / 8),
        (ReleaseFormat((1,), "letters", letters=8), 3 / 8),
        (ReleaseFormat((1,), "letters", letters=256), 1),
        (ReleaseFormat((1,), "letters", letters=257), 9 / 8),
        (ReleaseFormat((4,), "letters", letters=16), 2),
        (ReleaseFormat((16,), "float32"), 64),
        (ReleaseFormat((2, 3, 3), "float16"), 36),
        (ReleaseFormat((2, 3, 3), "int8"), 19),
        (ReleaseFormat((3, 3), "int4"), 6),
    ],
)
def test_what_a_release_alone_costs(form, alone):
    """It is what a message grows by beside four bytes of record number."""
    assert form.payload_bytes_per_record == alone
    grown = [
        form.bytes_of(rows, split="val", phase="joint") - 4 * rows - rows * alone for rows in (1024, 2048)
    ]
    assert math.isclose(grown[0], grown[1], abs_tol=16), "the header alone is left"
