"""The networks of a run: built from its seed, or read back from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from privhier.config import RunConfig
from privhier.datasets.base import FloatArray
from privhier.defenses.base import build_defense
from privhier.errors import CheckpointError
from privhier.models.edge import EdgeSegment
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.models.weights import load_weights
from privhier.privacy.dpsgd import mend
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng
from privhier.storage.sealed import altered
from privhier.training.batches import TrainingData
from privhier.training.clip import mechanism_of
from privhier.training.commons import training_key
from privhier.training.folder import RunFolder


@dataclass(frozen=True)
class Trained:
    """What training leaves in the run folder, read back.

    Attributes:
        edge: The trained edge segment, evaluation mode, CPU.
        tail: The trained cloud tail, evaluation mode, CPU.
        history: One dict per epoch: phase, epoch, metrics.
        test_releases: float32 ``(n_test, T, *shape)``, all the releases the cloud holds of each; letters
            ``(n_test, T, M)`` as whole numbers.
        training_releases: float32 ``(n_keep, T, *shape)``, the same of the training victims.
        uplink: messages, records, bytes that went up.
        mechanism: What sanitized its releases.
        code: How validation records use each group's letters (``models.codebook.Usage``); empty without
            letters.
        defense: What the defense says of the trained edge (``Defense.report``).
    """

    edge: EdgeSegment
    tail: CloudTail
    history: list[dict[str, Any]]
    test_releases: FloatArray
    training_releases: FloatArray
    uplink: dict[str, int]
    mechanism: ReleaseMechanism
    code: list[dict[str, Any]]
    defense: dict[str, Any]


def build_model(
    config: RunConfig, data: TrainingData, *, pretrained: bool = True
) -> tuple[EdgeSegment, CloudTail]:
    """The run's network, initialized from its seed; ``pretrained=False`` ignores ``model.weights``."""
    model = config.model if pretrained else config.model.model_copy(update={"weights": "none"})
    return network_of(
        config.model_copy(update={"model": model}), data.image_size, data.task_classes, data.sensitive_classes
    )


def network_of(
    config: RunConfig,
    image_size: int,
    task_classes: Mapping[str, int],
    sensitive_classes: Mapping[str, int],
) -> tuple[EdgeSegment, CloudTail]:
    """The run's network for images and classes of these sizes, with what its defense puts at the edge's end.

    Mended where DP-SGD asks for it.
    """
    edge, tail = build_network(
        config.model,
        image_size=image_size,
        task_classes=task_classes,
        sensitive_classes=sensitive_classes,
        seed=config.seed,
        matched_filter=config.matched_filter,
    )
    with isolated_rng(config.seed, "model", "outlet"):
        outlet = build_defense(config.defense).outlet(edge.feature_shape)
    if outlet is not None:
        edge.outlet = outlet
    if config.edge.dp_sgd is not None:
        edge, changes = mend(edge)
        edge.note(mended=changes)
    return edge, tail


def load_trained(config: RunConfig, data: TrainingData, folder: RunFolder) -> Trained:
    """Read a finished training back from its folder.

    Raises:
        CheckpointError: Training has not finished there.
    """
    facts = finished_training(folder)
    if facts["training"] != training_key(config):
        raise altered(folder.training, "is of a training under another configuration")
    edge, tail = build_model(config, data, pretrained=False)
    sealed = folder.sealed
    load_weights(edge, sealed.checked(folder.edge))
    load_weights(tail, sealed.checked(folder.tail))
    return Trained(
        edge=edge.eval(),
        tail=tail.eval(),
        history=sealed.read_json(folder.history),
        test_releases=sealed.read_array(folder.releases("test"), mmap=True),
        training_releases=sealed.read_array(folder.releases("training_victims"), mmap=True),
        uplink=facts["uplink"],
        mechanism=mechanism_of(config, facts["n_train"], folder),
        code=facts.get("code", []),
        defense=facts.get("defense", {}),
    )


def finished_training(folder: RunFolder) -> dict[str, Any]:
    """What the marker of a finished training says: shapes, classes, totals.

    Raises:
        CheckpointError: Training has not finished there.
    """
    if not folder.training.exists():
        if folder.edge_facts.exists():
            raise CheckpointError(
                key="RUN",
                value=str(folder.root),
                rule="holds the edge's half of a run only",
                remedy="Put both halves together: `privhier join EDGE_RUN CLOUD_RUN --out RUN`",
            )
        raise CheckpointError(
            key="RUN",
            value=str(folder.root),
            rule="holds no finished training",
            remedy="Finish it with `privhier run CONFIG --out FOLDER --resume`",
        )
    facts: dict[str, Any] = folder.sealed.read_json(folder.training)
    return facts
