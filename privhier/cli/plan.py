"""The verb ``privhier plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from privhier.cli.arguments import ConfigArgument, Overrides
from privhier.cli.console import console, say
from privhier.errors import ConfigError

if TYPE_CHECKING:
    from privhier.config import RunConfig
    from privhier.datasets.base import ImageArray
    from privhier.planner.devices import Machines
    from privhier.planner.plan import Plan
    from privhier.planner.stages import Records

SAMPLE = 200
"""Images whose JPEG bytes are measured."""
_WIDTH = 110
"""Of the tables where no terminal says how wide it is."""


def plan(
    config: ConfigArgument,
    overrides: Overrides = None,
    *,
    bitrate: Annotated[str, typer.Option("--bitrate", help="Of the line, e.g. 5Mbit")],
    latency: Annotated[str, typer.Option("--latency", help="Of the line, one way, e.g. 20ms")] = "0ms",
    tls: Annotated[bool, typer.Option("--tls/--plain", help="Whether the line is encrypted")] = True,
    wire: Annotated[
        str | None, typer.Option("--wire", help="float32, float16, int8 or int4; default: release.quantize")
    ] = None,
    edge_device: Annotated[
        Path | None,
        typer.Option("--edge-device", metavar="FILE.yaml", help="An edge that is not this machine"),
    ] = None,
    cloud_device: Annotated[
        Path | None,
        typer.Option("--cloud-device", metavar="FILE.yaml", help="A cloud that is not this machine"),
    ] = None,
    cloud_speed: Annotated[
        float, typer.Option("--cloud-speed", min=1e-6, help="Cloud's speed against this machine's")
    ] = 1.0,
    edge_threads: Annotated[
        int | None, typer.Option("--edge-threads", min=1, help="Default: runtime.threads")
    ] = None,
    cloud_threads: Annotated[
        int | None, typer.Option("--cloud-threads", min=1, help="Default: runtime.threads")
    ] = None,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--apart",
            help="Time both sides side by side, in two processes; default: if both are this machine",
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Limit for the edge's training, e.g. 512MiB")
    ] = None,
    frontier: Annotated[
        Path | None, typer.Option("--frontier", metavar="SWEEP_DIR", help="What leaks, by cut")
    ] = None,
    max_leakage: Annotated[
        float | None,
        typer.Option("--max-leakage", min=0, max=1, help="Worst attacker's score; with --frontier"),
    ] = None,
    cut: Annotated[
        list[str] | None, typer.Option("--cut", help="Only this cut; repeatable; default: all")
    ] = None,
    records: Annotated[
        int | None, typer.Option("--records", min=20, help="Plan for so many images; loads no data set")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Laps whose median counts")] = 5,
    scratch: Annotated[
        Path | None,
        typer.Option("--scratch", metavar="DIR", help="On the disk that runs use; default: temporary files"),
    ] = None,
    jpeg_quality: Annotated[int, typer.Option("--jpeg-quality", min=1, max=95)] = 90,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Also write it here")] = None,
) -> None:
    """Predict run times over a line for every cut and schedule, and name the best cut within limits."""
    from privhier.config import load_config
    from privhier.planner.baselines import Images
    from privhier.planner.leakage_by_cut import LeakageByCut
    from privhier.planner.line import Link
    from privhier.planner.plan import Limits, make_plan
    from privhier.planner.profile import profile
    from privhier.planner.timing import TimingJob
    from privhier.planner.timing_process import Side
    from privhier.planner.timing_whole import time_jpeg
    from privhier.planner.units import parse_bitrate, parse_bytes, parse_seconds
    from privhier.storage.files import write_json

    resolved = load_config(config, [*(overrides or ()), *([f"release.quantize={wire}"] if wire else [])])
    link = Link(parse_bitrate(bitrate), parse_seconds(latency), tls)
    if max_leakage is not None and frontier is None:
        raise ConfigError(
            key="--max-leakage",
            value=max_leakage,
            rule="needs a sweep that says what leaks",
            remedy="Give its folder with --frontier",
        )
    machines = _machines(edge_device, cloud_device, cloud_speed)
    limits = Limits(parse_bytes(memory) if memory else None, max_leakage)
    known = LeakageByCut(frontier) if frontier else None
    threads = int(resolved.runtime.threads)
    with console.status("looking at the data") as status:
        counts, task_classes, sensitive_classes, sample = _workload(resolved, records)
        jpeg = time_jpeg(sample, quality=jpeg_quality)
        found = profile(
            TimingJob(resolved, task_classes, sensitive_classes, steps),
            edge=Side(edge_threads or threads),
            cloud=Side(cloud_threads or threads),
            cuts=cut,
            together=machines.one if together is None else together,
            scratch=scratch,
            progress=lambda text, done, total: status.update(f"{text} ({done + 1} of {total})"),
        )
    images = [Images("raw", 3 * resolved.dataset.image_size**2), Images(f"JPEG {jpeg_quality}", *jpeg)]
    made = make_plan(
        resolved, found, counts, link, machines=machines, limits=limits, images=images, frontier=known
    )
    _show(made)
    if out is not None:
        write_json(out, made.to_dict())
        say(f"plan: {out}")


def _machines(edge: Path | None, cloud: Path | None, cloud_speed: float) -> Machines:
    """The two sides' devices, read from their files."""
    from privhier.planner.devices import Machines, load_device

    if cloud is not None and cloud_speed != 1:
        raise ConfigError(
            key="--cloud-speed",
            value=cloud_speed,
            rule="and --cloud-device exclude each other",
            remedy="Give one of them",
        )
    return Machines(load_device(edge) if edge else None, load_device(cloud) if cloud else None, cloud_speed)


def _show(made: Plan) -> None:
    """Print its tables, then its sentences."""
    from privhier.planner.text import lines, tables

    page = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    if not page.is_terminal:
        page.width = _WIDTH
    for table in tables(made):
        page.print(table)
        page.print()
    for line in lines(made):
        page.print(line, markup=False)


def _workload(
    config: RunConfig, images: int | None
) -> tuple[Records, dict[str, int], dict[str, int], ImageArray]:
    """Records, classes of tasks and of sensitive attributes, and some images for their JPEG bytes."""
    from privhier.config import DatasetConfig
    from privhier.datasets.load import load_dataset
    from privhier.planner.stages import Records
    from privhier.training.prepare import prepare

    size = config.training.batch_size
    if images is None:
        dataset = load_dataset(config.dataset, seed=config.seed)
        data = prepare(config, dataset).data
        splits = data.splits
        counts = Records(len(splits.train), len(splits.val), len(splits.test), size)
        sample = data.images[splits.train[:SAMPLE]]
        return counts, dict(data.task_classes), dict(data.sensitive_classes), sample
    shares = config.dataset.splits
    train, val, test = (round(images * share) for share in (shares.train, shares.val, shares.test))
    drawn = DatasetConfig(
        name="synthetic",
        image_size=config.dataset.image_size,
        task=["smiling"],
        sensitive=["male"],
        options={"images": SAMPLE, "identities": SAMPLE // 2},
    )
    sample = load_dataset(drawn, seed=config.seed).images
    counts = Records(train, val, test, size)
    return counts, dict.fromkeys(config.dataset.task, 2), dict.fromkeys(config.dataset.sensitive, 2), sample
