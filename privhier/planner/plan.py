"""The planner: what every cut and schedule takes over a line of a given bit rate, and which one to take.

profile -> forecasts of all cuts, schedules and alternatives -> the fastest within limits
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from privhier.config import RunConfig, ScheduleConfig
from privhier.config.letters import check_letters
from privhier.evaluation.points import Estimate
from privhier.planner.baselines import Images, all_on_edge, images_anew, images_once, split_learning
from privhier.planner.devices import HERE, Machines
from privhier.planner.forecast import hierarchical
from privhier.planner.leakage_by_cut import LeakageByCut
from privhier.planner.line import SEGMENT_PAYLOAD, Link
from privhier.planner.profile import CutProfile, Profile
from privhier.planner.stages import Forecast, Records
from privhier.planner.timing import split_form
from privhier.planner.units import parse_bitrate, show_bitrate, show_bytes, show_seconds

SCHEMA = "privhier.plan/1"


@dataclass(frozen=True)
class Limits:
    """What a choice must keep to.

    Attributes:
        memory: Bytes of the edge's training; None: no limit.
        leakage: The worst attacker's score; None: no limit. What is not known is not chosen under one.
    """

    memory: int | None = None
    leakage: float | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Row:
    """One cut under one schedule.

    Attributes:
        cut: The cut.
        schedule: Its three numbers.
        forecast: What it takes.
        leakage: What a sweep found; None: unknown.
        refused: Why it cannot be chosen; empty: it can.
    """

    cut: str
    schedule: ScheduleConfig
    forecast: Forecast
    leakage: Estimate | None
    refused: str


@dataclass(frozen=True)
class Plan:
    """Everything that was predicted, and the choice.

    Attributes:
        configured: Name of the configured schedule's regime.
        rows: Every cut under every schedule.
        alternatives: What one would do otherwise; with the cut, where it has one.
        best: The fastest cut within limits under the configured schedule; None: none keeps to them.
        fastest: The fastest within limits of all schedules.
        assumptions: What was taken for granted, in sentences.
    """

    profile: Profile
    records: Records
    link: Link
    queue: int
    machines: Machines
    limits: Limits
    configured: str
    rows: tuple[Row, ...]
    alternatives: tuple[tuple[str, Forecast], ...]
    best: Row | None
    fastest: Row | None
    assumptions: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "schema": SCHEMA,
            "records": asdict(self.records),
            "link": asdict(self.link),
            "queue": self.queue,
            "machines": {
                "edge": self.machines.edge.model_dump() if self.machines.edge else None,
                "cloud": self.machines.cloud.model_dump() if self.machines.cloud else None,
                "cloud_speed": self.machines.cloud_speed,
            },
            "limits": asdict(self.limits),
            "configured": self.configured,
            "profile": asdict(self.profile),
            "rows": [_row(row) for row in self.rows],
            "alternatives": [{"cut": cut or None, **_forecast(found)} for cut, found in self.alternatives],
            "best": _row(self.best) if self.best else None,
            "fastest": _row(self.fastest) if self.fastest else None,
            "assumptions": list(self.assumptions),
        }


def predict(
    cut: CutProfile,
    records: Records,
    *,
    bitrate: str | float,
    schedule: ScheduleConfig | None = None,
    latency: float = 0.0,
    queue: int = 4,
    tls: bool = False,
    segment_headers: int | None = None,
    machines: Machines = HERE,
) -> Forecast:
    """What one profiled cut takes over a line; for comparison with what a run took.

    Args:
        cut: From ``privhier.planner.profile.profile``.
        records: Of the run's splits, and its batch size.
        bitrate: Bits per second, or in words such as ``"5Mbit"``.
        schedule: Default: three joint epochs.
        latency: Seconds one way.
        queue: The run's ``link.queue``.
        tls: Whether the line is encrypted.
        segment_headers: Bytes the line counts for a TCP segment; default: those of Ethernet.
        machines: Default: both sides on the machine that was profiled.

    Returns:
        Its ``edge_epoch_seconds`` and ``cloud_epoch_seconds`` are what the two ``link.json`` call
        ``seconds`` of a joint epoch.
    """
    rate = parse_bitrate(bitrate) if isinstance(bitrate, str) else bitrate
    link = Link(rate, latency, tls)
    if segment_headers is not None:
        link = replace(link, segment_headers=segment_headers)
    edge, cloud, slowdown = machines.fit(cut, records.batch_size)
    chosen = schedule or ScheduleConfig(joint_epochs=3)
    return hierarchical(
        edge, cloud, records, cut.form, link, chosen, regime=name_of(chosen), queue=queue, slowdown=slowdown
    )


def name_of(schedule: ScheduleConfig) -> str:
    """A schedule in words, with its three numbers."""
    before, both, after = schedule.pretrain_epochs, schedule.joint_epochs, schedule.cloud_epochs
    if after:
        kind = "release once" if not both else "joint, then release once"
    else:
        kind = "two-stage" if before else "joint"
    return f"{kind} ({before}, {both}, {after})"


def schedules_of(configured: ScheduleConfig) -> list[ScheduleConfig]:
    """The configured schedule first, then the usual ones with as many epochs for either half."""
    before, both, after = configured.pretrain_epochs, configured.joint_epochs, configured.cloud_epochs
    edge, cloud = before + both, both + after
    most = max(edge, cloud)
    others = [
        ScheduleConfig(joint_epochs=most),
        ScheduleConfig(pretrain_epochs=edge, cloud_epochs=cloud),
        *([ScheduleConfig(pretrain_epochs=most - most // 2, joint_epochs=most // 2)] if most > 1 else []),
    ]
    found: list[ScheduleConfig] = [configured]
    for schedule in others:
        if schedule not in found:
            found.append(schedule)
    return found


def make_plan(
    config: RunConfig,
    profile: Profile,
    records: Records,
    link: Link,
    *,
    queue: int | None = None,
    machines: Machines = HERE,
    limits: Limits = NO_LIMITS,
    images: Sequence[Images] = (),
    frontier: LeakageByCut | None = None,
) -> Plan:
    """Forecasts for every cut, schedule and alternative, and the choice.

    Args:
        config: The run.
        profile: Of its cuts.
        records: Of its splits.
        link: The line.
        queue: Default: ``link.queue``.
        machines: Where the two sides are.
        limits: What the choice must keep to.
        images: How images would go up.
        frontier: What leaks.
    """
    ahead = queue if queue is not None else config.link.queue
    if machines.edge is not None and machines.edge.memory_bytes is not None:
        smaller = min(limits.memory or machines.edge.memory_bytes, machines.edge.memory_bytes)
        limits = replace(limits, memory=smaller)
    schedules, rows = schedules_of(config.schedule), list[Row]()
    for schedule in schedules:
        for name, cut in profile.cuts.items():
            edge, cloud, slowdown = machines.fit(cut, records.batch_size)
            forecast = hierarchical(
                edge,
                cloud,
                records,
                cut.form,
                link,
                schedule,
                regime=name_of(schedule),
                queue=ahead,
                slowdown=slowdown,
            )
            leakage = frontier.of(config, cut=name, schedule=schedule) if frontier else None
            refused = _refused(cut.edge_count.memory.total, leakage, limits) or _never(config, schedule)
            rows.append(Row(name, schedule, forecast, leakage, refused))
    allowed = [row for row in rows if not row.refused]
    own = [row for row in allowed if row.schedule == config.schedule]

    def seconds(row: Row) -> float:
        return row.forecast.run_seconds

    return Plan(
        profile=profile,
        records=records,
        link=link,
        queue=ahead,
        machines=machines,
        limits=limits,
        configured=name_of(config.schedule),
        rows=tuple(rows),
        alternatives=tuple(_alternatives(config, profile, records, link, machines, images, schedules, ahead)),
        best=min(own, key=seconds, default=None),
        fastest=min(allowed, key=seconds, default=None),
        assumptions=tuple(_assumptions(config, profile, link, machines, frontier is not None)),
    )


def _refused(memory: int, leakage: Estimate | None, limits: Limits) -> str:
    if limits.memory is not None and memory > limits.memory:
        return f"needs {show_bytes(memory)} on the edge, more than {show_bytes(limits.memory)}"
    if limits.leakage is not None:
        if leakage is None:
            return "its leakage is unknown"
        if leakage.value > limits.leakage:
            return f"leaks {leakage.value:.3f}, more than {limits.leakage:g}"
    return ""


def _never(config: RunConfig, schedule: ScheduleConfig) -> str:
    """Why a run could not have this schedule; empty: it could."""
    try:
        check_letters(config.model, config.release, schedule, dp_sgd=config.edge.dp_sgd is not None)
    except ValueError as error:
        return str(error)
    return ""


def _alternatives(
    config: RunConfig,
    profile: Profile,
    records: Records,
    link: Link,
    machines: Machines,
    images: Sequence[Images],
    schedules: Sequence[ScheduleConfig],
    queue: int,
) -> Iterator[tuple[str, Forecast]]:
    """With as many epochs as the joint schedule; the cut's name where there is one, else an empty string."""
    if profile.whole is None:
        return
    epochs = max(schedule.joint_epochs for schedule in schedules)
    edge_whole, cloud_whole = machines.fit_whole(profile.whole, records.batch_size)
    for kind in images:
        there = replace(
            kind,
            encode=kind.encode * edge_whole.step / profile.whole.edge.step,
            decode=kind.decode * cloud_whole.step / profile.whole.cloud.step,
        )
        yield "", images_once(cloud_whole, records, link, there, epochs=epochs, queue=queue)
        yield "", images_anew(cloud_whole, records, link, there, epochs=epochs, queue=queue)
    for name, cut in profile.cuts.items():
        edge, cloud, _ = machines.fit(cut, records.batch_size)
        form = split_form(config, cut.form)
        yield name, split_learning(edge, cloud, records, form, link, epochs=epochs)
    yield "", all_on_edge(edge_whole, records, epochs=epochs)


def _assumptions(
    config: RunConfig, profile: Profile, link: Link, machines: Machines, frontier: bool
) -> Iterator[str]:
    batch = config.training.batch_size
    how = "alone and while the other one worked" if profile.together else "one after the other"
    yield f"Steps were timed here on made-up pixels in batches of {batch}, edge and cloud {how}; medians."
    for side, device in (("edge", machines.edge), ("cloud", machines.cloud)):
        if device is not None:
            yield (
                f"The {side} is {device.name}: its counted operations at {device.efficiency:.0%} of "
                f"{device.operations_per_second:.3g} per second; noise, codec and disk scale alike."
            )
    if machines.cloud is None and machines.cloud_speed != 1:
        yield f"The cloud is {machines.cloud_speed:g} times as fast as this machine, in everything."
    yield (
        f"The line carries {show_bitrate(link.bits_per_second)} either way without loss, "
        f"{show_seconds(link.latency)} one way{', under TLS' if link.tls else ''}. Framing counts, with "
        f"{link.segment_headers} bytes of headers for every {SEGMENT_PAYLOAD} of TCP; slow start does not."
    )
    yield "Run time is training with its validation releases and checkpoints; test releases come on top."
    yield (
        "Edge memory is weights, gradients, optimizer and what the backward pass needs of one batch; "
        "passing buffers and the program itself are not in it."
    )
    yield "The planner knows times, not accuracy: schedules and cuts do not train equally well."
    if profile.whole is not None:
        yield "The edge makes JPEG of an image each time it goes up; split learning sends float32 both ways."
    if config.model.bottleneck.kind == "letters":
        yield "Finding the letters after pre-training is not in it: seconds, once."
        if profile.whole is not None:
            yield (
                "A letter has no gradient: split learning sends the values that would become letters, which "
                "nothing protects."
            )
    if not frontier:
        yield "Leakage was not looked at: no sweep was given."


def _row(row: Row) -> dict[str, Any]:
    return {
        "cut": row.cut,
        "schedule": row.schedule.model_dump(),
        **_forecast(row.forecast),
        "leakage": asdict(row.leakage) if row.leakage else None,
        "refused": row.refused or None,
    }


def _forecast(forecast: Forecast) -> dict[str, Any]:
    values = asdict(forecast)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
