"""What one would do otherwise: images up, split learning, everything on the edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

from privhier.planner.line import Link, Message, simulate
from privhier.planner.stages import Busy, CloudTimes, EdgeTimes, Forecast, Records, WholeTimes, sizes_of
from privhier.uplink.sizes import ReleaseFormat

IMAGE_HEADER = 256
"""Bytes of a message of images beside the images and four bytes of label each."""
_PLAYED = 3
"""Epochs that are played where the rest are like the last."""
_ROWS = 256
"""Validation images in one message."""


@dataclass(frozen=True)
class Images:
    """How images go up.

    Attributes:
        name: ``"raw"`` or ``"JPEG"``, for the regime's name.
        bytes_per_image: Mean.
        encode: Seconds of the edge for one image, each time it goes up.
        decode: Seconds of the cloud for one image.
    """

    name: str
    bytes_per_image: float
    encode: float = 0.0
    decode: float = 0.0


def images_once(
    whole: WholeTimes, records: Records, link: Link, images: Images, *, epochs: int, queue: int = 4
) -> Forecast:
    """All images up once, kept by the cloud, which trains on them as they come and then alone."""
    train, val = _train_images(whole, records, link, images), _val_images(records, link, images)
    timeline, busy = simulate([*train, *val], link, queue=queue), Busy()
    evaluation = records.val * whole.metrics
    epoch = records.steps * whole.step + evaluation
    busy.add_all(timeline)
    busy.add("cloud", (epochs - 1) * epoch)
    return Forecast(
        regime=f"images up once, {images.name}",
        step_seconds=whole.step,
        epoch_seconds=epoch,
        run_seconds=timeline.seconds + evaluation + (epochs - 1) * epoch,
        up_bytes_per_epoch=0,
        up_bytes=sum(message.size for message in (*train, *val)),
        down_bytes=0,
        bound=busy.most,
    )


def images_anew(
    whole: WholeTimes, records: Records, link: Link, images: Images, *, epochs: int, queue: int = 4
) -> Forecast:
    """Training images up anew every epoch, as in online learning; validation images once, beforehand."""
    train, val = _train_images(whole, records, link, images), _val_images(records, link, images)
    evaluation = records.val * whole.metrics
    later = [replace(train[0], cloud=train[0].cloud + evaluation), *train[1:]]
    played = min(epochs, _PLAYED)
    timeline = simulate([*train, *later * (played - 1)], link, queue=queue)
    before, busy = simulate(val, link, queue=queue), Busy()
    busy.add_all(timeline)
    ends = [timeline.trained[len(train) * (number + 1) - 1] for number in range(played)]
    epoch = (ends[-1] - ends[0]) / (played - 1) if played > 1 else ends[0] + evaluation
    steps = len(train) - 1
    step = (ends[-1] - timeline.trained[-len(train)]) / steps if steps else epoch
    return Forecast(
        regime=f"images up every epoch, {images.name}",
        step_seconds=step,
        epoch_seconds=epoch,
        run_seconds=before.seconds + ends[-1] + evaluation + (epochs - played) * epoch,
        up_bytes_per_epoch=sum(message.size for message in train),
        up_bytes=epochs * sum(message.size for message in train) + sum(message.size for message in val),
        down_bytes=0,
        bound=busy.most,
    )


def split_learning(
    edge: EdgeTimes, cloud: CloudTimes, records: Records, form: ReleaseFormat, link: Link, *, epochs: int
) -> Forecast:
    """Features up and gradients down, one after the other: nobody works while another does.

    Args:
        form: What either looks like (``split_form``).
    """
    busy = Busy()
    sizes = [form.bytes_of(rows, phase="joint") for rows in records.batches]
    for rows, size in zip(records.batches, sizes, strict=True):
        send, share = 2 * link.processor_seconds(size), rows / records.batch_size
        busy.add("edge", share * edge.split + send)
        busy.add("cloud", share * cloud.split + send)
        busy.add("link", 2 * (link.seconds(size) + link.latency))
    val = [
        Message(rows * edge.release, form.bytes_of(rows, split="val", phase="joint"), rows * cloud.take)
        for rows in (sizes_of(records.val, form.rows) if records.val else [])
    ]
    epoch = busy.seconds + simulate(val, link).seconds
    up = sum(sizes) + sum(message.size for message in val)
    return Forecast(
        regime="split learning",
        step_seconds=busy.seconds / len(sizes),
        epoch_seconds=epoch,
        run_seconds=epochs * epoch,
        up_bytes_per_epoch=up,
        up_bytes=epochs * up,
        down_bytes=epochs * sum(sizes),
        bound=busy.most,
    )


def all_on_edge(whole: WholeTimes, records: Records, *, epochs: int) -> Forecast:
    """No cloud at all; ``whole`` as on the edge."""
    epoch = records.steps * whole.step + records.val * whole.metrics
    return Forecast("all on the edge", whole.step, epoch, epochs * epoch, 0, 0, 0, "edge")


def _train_images(whole: WholeTimes, records: Records, link: Link, images: Images) -> list[Message]:
    return [_message(rows, link, images, rows / records.batch_size * whole.step) for rows in records.batches]


def _val_images(records: Records, link: Link, images: Images) -> list[Message]:
    return [
        _message(rows, link, images, 0.0) for rows in (sizes_of(records.val, _ROWS) if records.val else [])
    ]


def _message(rows: int, link: Link, images: Images, work: float) -> Message:
    size = round(rows * (images.bytes_per_image + 4)) + IMAGE_HEADER
    send = link.processor_seconds(size)
    return Message(send + rows * images.encode, size, send, send + rows * images.decode + work)
