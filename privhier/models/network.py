"""Edge segment and cloud tail from a configuration and a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from privhier.config import BottleneckConfig, ModelConfig
from privhier.models.backbones import build_backbone
from privhier.models.bottleneck import Expander, build_bottleneck
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.letter_code import LetterCode
from privhier.models.matched_filter import MatchedFilter
from privhier.models.split import split_backbone
from privhier.models.tail import CloudTail
from privhier.seeding import isolated_rng


def build_network(
    config: ModelConfig,
    *,
    image_size: int,
    task_classes: Mapping[str, int],
    sensitive_classes: Mapping[str, int],
    seed: int,
    matched_filter: bool = False,
) -> tuple[EdgeSegment, CloudTail]:
    """Build both halves on the CPU; the same arguments give the same weights.

    Backbone, bottleneck and each exit draw from streams of their own, so that adding a sensitive
    attribute or a bottleneck changes no other part's initial weights.

    Args:
        config: The ``model`` section.
        image_size: Height and width in pixels.
        task_classes: Task attribute to its number of classes, in order.
        sensitive_classes: Sensitive attribute to its number of classes, in order.
        seed: The experiment's seed.
        matched_filter: Whether the tail of a map begins with a ``MatchedFilter``; it draws nothing.

    Raises:
        UnknownNameError: Unknown backbone or cut.
        ConfigError: Bottleneck, image size or weights that do not fit.
    """
    with isolated_rng(seed, "model", "backbone"):
        backbone = build_backbone(
            config.backbone,
            n_outputs=sum(task_classes.values()),
            image_size=image_size,
            norm=config.norm,
            stem=config.stem,
            weights=config.weights,
        )
    trunk, tail = split_backbone(backbone, config.cut)
    feature_shape = backbone.feature_shapes[config.cut]
    with isolated_rng(seed, "model", "bottleneck"):
        bottleneck, expander, exit_shape = build_bottleneck(config.bottleneck, feature_shape)

    if matched_filter and len(exit_shape) == 3 and isinstance(expander, Expander):
        channels, height, width = exit_shape
        expander = Expander(MatchedFilter((channels, height, width)), *expander)

    def exits(kind: str, classes: Mapping[str, int]) -> dict[str, Exit]:
        built = {}
        for name, count in classes.items():
            with isolated_rng(seed, "model", kind, name):
                built[name] = Exit(exit_shape, count, config.exit_hidden)
        return built

    origin, task_exits = backbone.provenance, exits("task_exit", task_classes)
    edge = EdgeSegment(
        trunk,
        bottleneck,
        task_exits=task_exits,
        adversarial_exits=exits("adversarial_exit", sensitive_classes),
        feature_shape=exit_shape,
        code=_code(config.bottleneck, seed, list(task_exits.values())),
        description={
            "backbone": config.backbone,
            "cut": config.cut,
            "norm": config.norm,
            "stem": config.stem,
            "image_size": image_size,
            "feature_shape": list(feature_shape),
            "bottleneck": config.bottleneck.kind,
            "weights": {"path": origin.path, "sha256": origin.sha256, "dropped": list(origin.dropped)},
        },
    )
    return edge, CloudTail(expander, tail, task_classes=task_classes)


def _code(config: BottleneckConfig, seed: int, exits: Sequence[Exit]) -> LetterCode | None:
    """What will hold the letters; None where a release is made of values."""
    if config.alphabet is None or config.size is None:
        return None
    with isolated_rng(seed, "model", "code"):
        return LetterCode(
            groups=config.groups,
            letters=config.alphabet,
            size=config.size,
            learned=config.fit == "learned",
            exits=exits if config.fit == "posteriors" else (),
        )
