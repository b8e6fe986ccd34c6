"""What sections must agree on where a release is a letter."""

from __future__ import annotations

from privhier.config.network import ModelConfig
from privhier.config.privacy import LETTER_MECHANISMS, ORDERED_MOST, ReleaseConfig
from privhier.config.training import ScheduleConfig


def check_letters(
    model: ModelConfig, release: ReleaseConfig, schedule: ScheduleConfig, *, dp_sgd: bool | None
) -> None:
    """Refuse a mechanism that does not fit what is released, or letters that cannot be found.

    Args:
        model: The network.
        release: How it is released.
        schedule: When.
        dp_sgd: Whether the edge is trained under DP-SGD; None: a cloud does not know.

    Raises:
        ValueError: For pydantic, which names the configuration.
    """
    bottleneck, name = model.bottleneck, release.mechanism
    if bottleneck.kind != "letters":
        if release.of_letters:
            raise ValueError(f"release.mechanism {name!r} answers letters: set model.bottleneck.kind=letters")
        return
    if name != "none" and not release.of_letters:
        known = ", ".join(LETTER_MECHANISMS)
        raise ValueError(f"release.mechanism {name!r} is for features; letters take {known} or none")
    if release.quantize != "float32" or release.clip != 1.0:
        raise ValueError("letters are neither clipped nor quantized: leave release.clip and .quantize out")
    if name == "truncated_geometric" and (bottleneck.alphabet or 0) > ORDERED_MOST:
        raise ValueError(f"truncated_geometric takes at most {ORDERED_MOST} letters")
    if dp_sgd and bottleneck.fit not in ("auto", "learned"):
        raise ValueError(
            f"model.bottleneck.fit {bottleneck.fit!r} reads letters off private features, outside the "
            "mechanism of edge.dp_sgd: choose learned, or drop edge.dp_sgd"
        )
    learned = bottleneck.fit == "learned" or (dp_sgd is not False and bottleneck.fit == "auto")
    if not learned and not schedule.pretrain_epochs:
        raise ValueError(
            "letters are fitted to what the edge has learned: schedule.pretrain_epochs must be at least 1, "
            "or model.bottleneck.fit learned"
        )


AUTO = ((0.0, 2), (2.25, 3), (3.25, 4), (4.75, 6), (5.75, 8), (8.5, 12), (10.0, 16))
"""From this epsilon of one answer on, so many letters (``letters: auto``), up to the next row.

Measured for one task of two classes under randomized response: of the K from 2 to 64 about the smallest whose
task AUC, from letters alone, is within 0.002 of the best, on UTKFace (gender) and on the synthetic faces
(smiling), by a prototype whose curves are not kept here. Several tasks want more: 32 at epsilon 8."""
AUTO_WITHOUT_NOISE = 16
"""Letters that are not answered at random: within 0.002 of the task AUC of the value itself (UTKFace,
gender; a prototype too)."""


def settled(
    model: ModelConfig, release: ReleaseConfig, schedule: ScheduleConfig, *, dp_sgd: bool | None
) -> ModelConfig:
    """The network with its ``auto`` choices about letters made, so that folder, hash and cloud hold them.

    Arguments are those of ``check_letters``; a cloud's fit stays open, as it needs none.
    """
    bottleneck = model.bottleneck
    if bottleneck.kind != "letters":
        return model
    made: dict[str, object] = {}
    if bottleneck.letters == "auto":
        made["letters"] = AUTO_WITHOUT_NOISE
        if release.of_letters and release.target_epsilon is not None:
            answers = bottleneck.groups * max(1, schedule.releases_per_record)
            share = release.target_epsilon / answers
            made["letters"] = max(count for least, count in AUTO if share >= least)
    if bottleneck.fit == "auto" and dp_sgd is not None:
        made["fit"] = "learned" if dp_sgd else "posteriors" if bottleneck.groups == 1 else "kmeans"
    return model.model_copy(update={"bottleneck": bottleneck.model_copy(update=made)})
