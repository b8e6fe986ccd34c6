"""The planner: predictions, choices within limits, the file it writes, and the verb."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from privhier.cli.main import app
from privhier.config import RunConfig, ScheduleConfig, load_config
from privhier.errors import ConfigError
from privhier.evaluation.points import Estimate
from privhier.planner.baselines import Images
from privhier.planner.counting import Count, Memory
from privhier.planner.devices import Device, Machines
from privhier.planner.line import Link, Slowdown
from privhier.planner.plan import Limits, make_plan, name_of, predict, schedules_of
from privhier.planner.profile import CutProfile, Profile, WholeProfile
from privhier.planner.stages import CloudTimes, EdgeTimes, Records, WholeTimes
from privhier.planner.text import lines, tables
from privhier.uplink.sizes import ReleaseFormat

RECORDS = Records(train=640, val=64, test=64, batch_size=64)
MIB = 2**20
WHOLE = WholeTimes(step=0.4, metrics=1e-3)


def cut(name: str, *, edge: float, cloud: float, channels: int, mib: int) -> CutProfile:
    return CutProfile(
        cut=name,
        form=ReleaseFormat((channels, 8, 8)),
        edge=EdgeTimes(step=edge, release=edge / 200, split=edge),
        cloud=CloudTimes(step=cloud, cached=cloud, split=cloud),
        slowdown=Slowdown(1.1, 1.1),
        edge_count=Count(1e6, 3e6 * edge, Memory(MIB, MIB, 2 * MIB, (mib - 4) * MIB)),
        cloud_count=Count(1e6, 3e6 * cloud, Memory(0, 0, 0, 0)),
    )


# Early: little work and wide releases. Late: the other way round.
CUTS = {
    "early": cut("early", edge=0.1, cloud=0.3, channels=64, mib=10),
    "middle": cut("middle", edge=0.2, cloud=0.2, channels=16, mib=20),
    "late": cut("late", edge=0.35, cloud=0.05, channels=2, mib=40),
}
UNDIVIDED = WholeProfile(WHOLE, WHOLE, Count(2e6, 6e6, Memory(1, 1, 2, 6)))
PROFILE = Profile(CUTS, {"last": "does not fit"}, UNDIVIDED, True)


class Leaks:
    """Stands for a sweep that knows one cut."""

    def __init__(self, known: dict[str, float]) -> None:
        self.known = known

    def of(self, config: RunConfig, *, cut: str, schedule: ScheduleConfig) -> Estimate | None:
        value = self.known.get(cut)
        return None if value is None else Estimate(value, value - 0.01, value + 0.01, 2)


@pytest.fixture
def config(repository) -> RunConfig:
    return load_config(
        repository / "configs" / "debug.yaml",
        ["schedule={pretrain_epochs: 0, joint_epochs: 8, cloud_epochs: 0}", "training.batch_size=64"],
    )


def planned(config: RunConfig, rate: float = 2e7, **options):
    return make_plan(config, PROFILE, RECORDS, Link(rate), **options)


@pytest.mark.parametrize(("rate", "best"), [(2e5, "late"), (5e6, "late"), (2e7, "middle"), (1e9, "middle")])
def test_the_thinner_the_line_the_later_the_best_cut(config, rate, best):
    plan = planned(config, rate)
    assert plan.best is not None
    assert plan.best.cut == best
    fastest = min(row.forecast.run_seconds for row in plan.rows if row.schedule == config.schedule)
    assert plan.best.forecast.run_seconds == fastest


def test_a_limit_of_memory_excludes_what_does_not_fit(config):
    assert planned(config, limits=Limits(memory=15 * MIB)).best.cut == "early"
    phone = Machines(edge=Device(name="phone", operations_per_second=1e9, memory_bytes=15 * MIB))
    assert planned(config, machines=phone, limits=Limits(memory=100 * MIB)).best.cut == "early"
    plan = planned(config, limits=Limits(memory=MIB))
    assert plan.best is plan.fastest is None
    assert any("none keeps to the limits" in line for line in lines(plan))


def test_a_limit_of_leakage_excludes_what_leaks_and_what_is_unknown(config):
    leaks = Leaks({"early": 0.9, "late": 0.55})
    plan = planned(config, limits=Limits(leakage=0.6), frontier=leaks)
    assert plan.best.cut == "late"
    reasons = {row.cut: row.refused for row in plan.rows}
    assert reasons == {
        "early": "leaks 0.900, more than 0.6",
        "middle": "its leakage is unknown",
        "late": "",
    }
    # Without a limit, what is known is only shown.
    assert planned(config, frontier=leaks).best.cut == "middle"


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ((0, 8, 0), ["joint (0, 8, 0)", "release once (8, 0, 8)", "two-stage (4, 4, 0)"]),
        ((12, 0, 6), ["release once (12, 0, 6)", "joint (0, 12, 0)", "two-stage (6, 6, 0)"]),
        ((0, 1, 0), ["joint (0, 1, 0)", "release once (1, 0, 1)"]),
        (
            (1, 1, 1),
            [
                "joint, then release once (1, 1, 1)",
                "joint (0, 2, 0)",
                "release once (2, 0, 2)",
                "two-stage (1, 1, 0)",
            ],
        ),
    ],
)
def test_the_configured_schedule_comes_first_and_the_usual_ones_follow(configured, expected):
    before, both, after = configured
    schedule = ScheduleConfig(pretrain_epochs=before, joint_epochs=both, cloud_epochs=after)
    assert [name_of(found) for found in schedules_of(schedule)] == expected


def test_what_one_would_do_otherwise_has_as_many_epochs(config):
    plan = planned(config, images=[Images("raw", 3072), Images("JPEG 90", 900, 1e-5, 1e-5)])
    found = {(name, forecast.regime): forecast for name, forecast in plan.alternatives}
    assert {name for name, regime in found if regime == "split learning"} == set(CUTS)
    anew = found["", "images up every epoch, raw"]
    assert anew.up_bytes == pytest.approx(8 * 640 * 3076 + 64 * 3076, rel=0.01)
    assert found["", "images up once, raw"].up_bytes < anew.up_bytes / 7
    assert found["", "all on the edge"].run_seconds == pytest.approx(8 * (10 * 0.4 + 0.064))


def test_prediction_of_one_cut_knows_the_line_in_words_and_the_machines():
    found = predict(CUTS["late"], RECORDS, bitrate="1Gbit")
    assert found.bound == "edge"
    # The edge is slower by a tenth while the cloud works: 0.05 s of 1.1 in 0.35.
    assert found.edge_epoch_seconds == pytest.approx(10 * (0.35 + 0.05 * 1.1 * (1 - 1 / 1.1)), rel=0.01)
    slow = predict(CUTS["late"], RECORDS, bitrate=1e5, segment_headers=0)
    assert slow.bound == "link"
    size = CUTS["late"].form.bytes_of(64, phase="joint")
    assert slow.step_seconds == pytest.approx(size * 8 / 1e5, rel=0.01)
    ten = predict(CUTS["early"], RECORDS, bitrate="1Gbit", machines=Machines(cloud_speed=10))
    assert ten.bound == "edge"
    with pytest.raises(ConfigError):
        predict(CUTS["late"], RECORDS, bitrate="5 apples")


def test_a_plan_is_plain_json_and_says_what_it_assumes(config):
    plan = planned(config, machines=Machines(cloud_speed=10), images=[Images("raw", 3072)])
    data = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert data["schema"] == "privhier.plan/1"
    assert data["best"]["cut"] == plan.best.cut
    assert len(data["rows"]) == 9
    assert data["alternatives"][0]["edge_epoch_seconds"] is None
    assert data["profile"]["skipped"] == {"last": "does not fit"}
    text = " ".join(lines(plan))
    for words in ("10 times as fast", "20 Mbit/s", "not accuracy", "made-up pixels", "skipped: last"):
        assert words in text
    assert [table.row_count for table in tables(plan)] == [3, 3, 3, 3, 6]


def run_plan(*arguments: str):
    return CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "160"})


def test_the_verb_profiles_predicts_and_writes(repository, tmp_path):
    out = tmp_path / "plan.json"
    done = run_plan(
        str(repository / "configs" / "debug.yaml"), "runtime.threads=1", "training.batch_size=16",
        "--bitrate", "500kbit", "--latency", "20ms", "--wire", "int8", "--apart", "--steps", "1",
        "--cut", "stage1", "--cut", "stage3", "--memory", "64MiB", "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "best cut at 500 kbit/s for joint, then release once (1, 1, 1): stage" in done.output
    assert "split learning, stage3" in done.output
    data = json.loads(out.read_text())
    assert data["records"] == {"train": 200, "val": 40, "test": 80, "batch_size": 16}
    assert list(data["profile"]["cuts"]) == ["stage1", "stage3"]
    assert data["profile"]["cuts"]["stage1"]["form"]["wire"] == "int8"
    assert {row["cut"] for row in data["rows"]} == {"stage1", "stage3"}
    assert all(math.isfinite(row["run_seconds"]) for row in data["rows"])
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--bitrate", "5 apples"], "--bitrate"),
        (["--bitrate", "5Mbit", "--latency", "soon"], "--latency"),
        (["--bitrate", "5Mbit", "--memory", "much"], "--memory"),
        (["--bitrate", "5Mbit", "--max-leakage", "0.6"], "--max-leakage"),
        (["--bitrate", "5Mbit", "--wire", "int2"], "release.quantize"),
        (["--bitrate", "5Mbit", "--edge-device", "absent.yaml"], "device"),
        (["--bitrate", "5Mbit", "--frontier", "absent"], "points.json"),
        (["--bitrate", "5Mbit", "--records", "100", "--cut", "stage9"], "model.cut"),
    ],
)
def test_bad_input_is_refused_before_anything_is_timed(repository, arguments, key):
    done = run_plan(str(repository / "configs" / "debug.yaml"), *arguments)
    assert getattr(done.exception, "key", None) == key, done.output
