"""The profile of a run on this machine: every cut's stages timed and counted, edge and cloud side by side.

Edge and cloud on one machine share its caches and memory bus, so each is timed alone and then while the
other one works too, each in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from privhier.defenses.base import build_defense
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment
from privhier.models.tail import CloudTail
from privhier.planner.counting import Count, count_cloud, count_edge, count_whole
from privhier.planner.line import FULL_SPEED, Slowdown
from privhier.planner.stages import CloudTimes, EdgeTimes, WholeTimes
from privhier.planner.timing import TimingJob, split_form
from privhier.planner.timing_cloud import CloudTimer
from privhier.planner.timing_edge import EdgeTimer
from privhier.planner.timing_process import Laps, Side, Worker, laps_together
from privhier.planner.timing_whole import time_whole, whole_network
from privhier.training.prepare import pick_device
from privhier.training.private_plan import check_defense
from privhier.training.trained import network_of
from privhier.uplink.codec import MAX_BYTES
from privhier.uplink.sizes import ReleaseFormat

Progress = Callable[[str, int, int], None]

_ROUNDS = 2
"""How often both sides are timed alone and together."""


@dataclass(frozen=True)
class CutProfile:
    """One cut of the configured network.

    Attributes:
        cut: Name of the last stage on the edge.
        form: What its messages look like.
        edge: The edge's seconds on this machine, alone.
        cloud: The cloud's seconds on this machine, alone.
        slowdown: Of either side while the other works as well; 1 where they were timed apart.
        edge_count: Operations and memory of the edge's training.
        cloud_count: The same of the cloud's.
    """

    cut: str
    form: ReleaseFormat
    edge: EdgeTimes
    cloud: CloudTimes
    slowdown: Slowdown
    edge_count: Count
    cloud_count: Count


@dataclass(frozen=True)
class WholeProfile:
    """The undivided network: seconds with the edge's threads and with the cloud's, operations and memory."""

    edge: WholeTimes
    cloud: WholeTimes
    count: Count


@dataclass(frozen=True)
class Profile:
    """All cuts of one configuration.

    Attributes:
        cuts: In the order of the stages.
        skipped: Cut to the reason why it cannot be used.
        whole: The undivided network; None: not asked for.
        together: Whether both sides were also timed while the other worked.
    """

    cuts: Mapping[str, CutProfile]
    skipped: Mapping[str, str]
    whole: WholeProfile | None
    together: bool


def profile(
    job: TimingJob,
    *,
    edge: Side,
    cloud: Side,
    cuts: Sequence[str] | None = None,
    together: bool = True,
    whole: bool = True,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Time and count every cut, with made-up pixels of the configured size and batches as configured.

    Args:
        job: The run; its own cut does not matter where ``cuts`` says which.
        edge: The edge's threads and cores.
        cloud: The cloud's.
        cuts: Which; None: all the backbone has.
        together: Two processes, timed alone and together; else one after the other, in this process.
        whole: Whether the undivided network and split learning are timed too.
        scratch: Folder on the disk that a run would use; None: the system's temporary folder.
        progress: Called with a description, what is done and how much there is.

    Raises:
        ConfigError: No cut can be used, cores are given without ``together``, or the defense does not fit.
    """
    if not together and (edge.cores or cloud.cores):
        raise ConfigError(
            key="together", value=False, rule="pins no side to cores", remedy="Profile them together"
        )
    check_defense(job.config, build_defense(job.config.defense))
    undivided = whole_network(job)
    jobs, counts, skipped = _usable(job, cuts or stages_of(undivided[0], undivided[1]))
    with _crew(edge, cloud, together, scratch) as crew:
        found: dict[str, CutProfile] = {}
        for number, (cut, chosen) in enumerate(jobs.items()):
            if progress is not None:
                progress(f"profile {cut}", number, len(jobs) + whole)
            found[cut] = crew.cut(cut, chosen, counts[cut], split=whole)
        all_of_it = None
        if whole:
            if progress is not None:
                progress("profile the undivided network", len(jobs), len(jobs) + 1)
            all_of_it = WholeProfile(*crew.whole(job), count_whole(job, *undivided))
    return Profile(found, skipped, all_of_it, together)


def stages_of(edge: EdgeSegment, tail: CloudTail) -> list[str]:
    """All cuts of the network whose halves these are, the image's end first."""
    names = [*edge.trunk._modules, *tail.tail._modules]
    return [name for name in names if name != "head"]


Counts = tuple[Count, Count]


def _usable(
    job: TimingJob, cuts: Sequence[str]
) -> tuple[dict[str, TimingJob], dict[str, Counts], dict[str, str]]:
    """The cuts that can be built and sent, counted; and why others cannot."""
    config, jobs, counts, skipped = job.config, dict[str, TimingJob](), dict[str, Counts](), dict[str, str]()
    reason: ConfigError | None = None
    for cut in cuts:
        model = config.model.model_copy(update={"cut": cut, "weights": "none"})
        chosen = TimingJob(
            config.model_copy(update={"model": model}), job.task_classes, job.sensitive_classes, job.steps
        )
        size = config.dataset.image_size
        try:
            edge, tail = network_of(chosen.for_timing, size, job.task_classes, job.sensitive_classes)
        except ConfigError as error:
            if not error.key.startswith("model.bottleneck"):
                raise
            skipped[cut], reason = f"{error.key}={error.value!r} {error.rule}", error
            continue
        form = split_form(config, chosen.form(edge.release_shape))
        if (need := form.bytes_of(config.training.batch_size, phase="joint")) > MAX_BYTES:
            skipped[cut] = f"a batch of releases has {need} bytes, a message at most {MAX_BYTES}"
            continue
        jobs[cut] = chosen
        counts[cut] = count_edge(chosen, edge), count_cloud(chosen, tail, edge.release_shape)
    if not jobs:
        raise reason or ConfigError(
            key="training.batch_size",
            value=config.training.batch_size,
            rule=f"makes every cut's messages too large: {skipped}",
            remedy="Choose a smaller batch or a bottleneck",
        )
    return jobs, counts, skipped


class _Crew(Protocol):
    """Who does the timing."""

    def cut(self, cut: str, job: TimingJob, counts: Counts, *, split: bool) -> CutProfile:
        """One cut."""
        ...

    def whole(self, job: TimingJob) -> tuple[WholeTimes, WholeTimes]:
        """The undivided network with the edge's threads and with the cloud's."""
        ...


@contextmanager
def _crew(edge: Side, cloud: Side, together: bool, scratch: Path | None) -> Iterator[_Crew]:
    with tempfile.TemporaryDirectory(dir=scratch, prefix="plan-") as folder:
        if not together:
            yield _Apart(edge, cloud, Path(folder))
            return
        with Worker("edge", edge, Path(folder)) as first, Worker("cloud", cloud, Path(folder)) as second:
            yield _Together(first, second)


@dataclass(frozen=True)
class _Together:
    """Two processes."""

    edge: Worker
    cloud: Worker

    def cut(self, cut: str, job: TimingJob, counts: Counts, *, split: bool) -> CutProfile:
        self.edge.prepare(job)
        self.cloud.prepare(job)
        edge, form = self.edge.edge_times(split=split)
        cloud = self.cloud.cloud_times(form, split=split)
        alone: list[list[Laps]] = [[(edge.step, edge.pack)], [(cloud.receive, cloud.step)]]
        both: list[list[Laps]] = [[], []]
        for number in range(_ROUNDS):
            for side, laps in enumerate(laps_together([self.edge, self.cloud])):
                both[side].append(laps)
            if number < _ROUNDS - 1:
                alone[0] += laps_together([self.edge])
                alone[1] += laps_together([self.cloud])
        # Whatever else the machine does can only add to a round: the quickest says most.
        (step, pack), (receive, train) = (min(laps, key=sum) for laps in alone)
        slow = [min(map(sum, many)) / min(map(sum, one)) for many, one in zip(both, alone, strict=True)]
        return CutProfile(
            cut,
            form,
            replace(edge, step=step, pack=pack),
            replace(cloud, receive=receive, step=train, cached=min(cloud.cached, train)),
            Slowdown(*(max(1.0, factor) for factor in slow)),
            *counts,
        )

    def whole(self, job: TimingJob) -> tuple[WholeTimes, WholeTimes]:
        return self.edge.whole(job), self.cloud.whole(job)


@dataclass(frozen=True)
class _Apart:
    """One side after the other, in this process."""

    edge: Side
    cloud: Side
    folder: Path

    def cut(self, cut: str, job: TimingJob, counts: Counts, *, split: bool) -> CutProfile:
        device = pick_device(job.config)
        with _threads(self.edge.threads):
            edge, form = EdgeTimer(job, self.folder / cut / "edge", device).times(split=split)
        with _threads(self.cloud.threads):
            timer = CloudTimer(job, self.folder / cut / "cloud", device)
            with closing(timer):
                cloud = timer.times(form, split=split)
        return CutProfile(cut, form, edge, cloud, FULL_SPEED, *counts)

    def whole(self, job: TimingJob) -> tuple[WholeTimes, WholeTimes]:
        device = pick_device(job.config)
        with _threads(self.edge.threads):
            edge = time_whole(job, device)
        if self.cloud == self.edge:
            return edge, edge
        with _threads(self.cloud.threads):
            return edge, time_whole(job, device)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
