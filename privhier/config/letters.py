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
    if name == "truncated_geometric" and (bottleneck.letters or 0) > ORDERED_MOST:
        raise ValueError(f"truncated_geometric takes at most {ORDERED_MOST} letters")
    if dp_sgd and bottleneck.fit in ("quantiles", "kmeans"):
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


def settled(model: ModelConfig, *, dp_sgd: bool) -> ModelConfig:
    """The network with its ``auto`` choices about letters made, so that folder, hash and cloud hold them."""
    bottleneck = model.bottleneck
    if bottleneck.kind != "letters" or bottleneck.fit != "auto":
        return model
    fit = "learned" if dp_sgd else "quantiles" if bottleneck.size == 1 else "kmeans"
    return model.model_copy(update={"bottleneck": bottleneck.model_copy(update={"fit": fit})})


def wire_of(model: ModelConfig, release: ReleaseConfig) -> str:
    """How releases go over the wire: ``letters``, or as ``release.quantize`` says."""
    return "letters" if model.bottleneck.kind == "letters" else release.quantize
