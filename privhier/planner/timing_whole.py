"""The undivided network on this machine: what training in one place would take."""

from __future__ import annotations

import io

import torch
from PIL import Image

from privhier.config import BottleneckConfig, Choice
from privhier.datasets.base import ImageArray
from privhier.models.backbones import build_backbone
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import augment, normalize
from privhier.models.tail import CloudTail
from privhier.planner.stages import WholeTimes
from privhier.planner.timing import TimingJob, made_up_data, seconds, typical
from privhier.seeding import isolated_rng, torch_stream
from privhier.training.cloud import mean_task_loss
from privhier.training.optimize import build_optimizer
from privhier.training.trained import network_of

_VALIDATION = 256


def whole_network(job: TimingJob) -> tuple[EdgeSegment, CloudTail]:
    """Both halves without a bottleneck between them: together the backbone as it is."""
    config = job.for_timing
    with isolated_rng(config.seed, "timing", "whole"):
        stages = build_backbone(
            config.model.backbone,
            n_outputs=sum(job.task_classes.values()),
            image_size=config.dataset.image_size,
            norm=config.model.norm,
            stem=config.model.stem,
        ).stage_names
    model = config.model.model_copy(
        update={
            "cut": stages[0],
            "bottleneck": BottleneckConfig(),
            "weights": "none",
            "matched_filter": False,
        }
    )
    return network_of(
        # Undefended too: what a defense puts at the end of an edge is no part of the backbone.
        config.model_copy(update={"model": model, "defense": Choice(name="none")}),
        config.dataset.image_size,
        job.task_classes,
        job.sensitive_classes,
    )


def time_whole(job: TimingJob, device: torch.device) -> WholeTimes:
    """Training and validation of the undivided network."""
    config, size = job.for_timing, job.config.training.batch_size
    data, options = made_up_data(job, size, _VALIDATION), config.training.augment
    edge, tail = whole_network(job)
    edge.to(device).train()
    tail.to(device).train()
    optimizer = build_optimizer([*edge.trunk.parameters(), *tail.parameters()], config.training.cloud)
    generator, labels = torch_stream(config.seed, "timing", "whole"), data.task[data.splits.train].to(device)

    def step() -> None:
        pixels = augment(data.pixels(data.splits.train), options.flip, options.shift, generator)
        loss = mean_task_loss(tail(edge.features(normalize(pixels.to(device)))), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.no_grad()
    def validate() -> None:
        tail(edge.features(normalize(data.pixels(data.splits.val).to(device))))[0].cpu()

    trained = typical(step, job, device)
    edge.eval()
    tail.eval()
    return WholeTimes(step=trained, metrics=typical(validate, job, device) / _VALIDATION)


def time_jpeg(images: ImageArray, *, quality: int) -> tuple[float, float, float]:
    """Mean bytes of these images uint8 ``(n, 3, H, W)`` as JPEG; seconds to encode and to decode one."""
    files: list[bytes] = []

    def encode() -> None:
        for picture in images:
            buffer = io.BytesIO()
            Image.fromarray(picture.transpose(1, 2, 0)).save(buffer, format="JPEG", quality=quality)
            files.append(buffer.getvalue())

    def decode() -> None:
        for data in files:
            Image.open(io.BytesIO(data), formats=("JPEG",)).load()

    times = seconds(encode), seconds(decode)
    return sum(map(len, files)) / len(files), times[0] / len(files), times[1] / len(files)
