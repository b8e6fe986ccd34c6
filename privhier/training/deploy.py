"""A trained edge, loaded from its run folder and ready to release, and the tail that reads its releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from privhier.config.shared import load_shared
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import normalize
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.models.weights import load_weights
from privhier.privacy.noise import NoiseSource, SystemNoise
from privhier.privacy.release import Release, ReleaseMechanism
from privhier.storage.sealed import file_digest
from privhier.training.clip import mechanism_of
from privhier.training.cloud_folder import CloudFolder
from privhier.training.folder import RunFolder
from privhier.training.occupancy import saved_config
from privhier.training.trained import finished_training, network_of
from privhier.uplink.frames import Hello


class ReleasingEdge(nn.Module):
    """Edge segment and release mechanism in one: there is no way around the noise.

    Args:
        edge: The trained edge segment.
        mechanism: Clip, noise, quantization of the run it was trained in.
        noise: Where noise comes from; operating-system entropy by default, also after a seeded study.

    Every call draws fresh noise, in training and in evaluation mode alike. Each call on the same
    record is one more release of it: the caller keeps count.
    """

    def __init__(
        self, edge: EdgeSegment, mechanism: ReleaseMechanism, noise: NoiseSource | None = None
    ) -> None:
        super().__init__()
        self.edge, self.mechanism = edge, mechanism
        self.noise = noise if noise is not None else SystemNoise()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Release:
        """uint8 images ``(B, 3, S, S)`` to their release.

        Its ``values`` are float32 ``(B, *feature_shape)``; of letters, ``letters`` int64 ``(B, M)`` go up.
        """
        features = self.edge.features(normalize(images)).float()
        return self.mechanism.sanitize(features, self.noise, self.edge.codebook)


def load_edge(run: Path, *, weights: Path | None = None) -> ReleasingEdge:
    """The trained edge of a run; needs the run folder only, not the data set.

    The folder of ``privhier edge`` will do at any time after its start: the edge answers as it is after
    its last finished epoch, whatever becomes of the line and the cloud.

    Args:
        run: The run folder.
        weights: Another copy of ``edge.safetensors``, for instance one downloaded from MLflow; the same
            bytes, or it is refused.

    Raises:
        CheckpointError: Training has not finished there, or a file was altered since.
    """
    folder = RunFolder(run)
    config, facts = saved_config(folder), _facts(folder)
    plain = config.model_copy(update={"model": config.model.model_copy(update={"weights": "none"})})
    edge, _ = network_of(plain, facts["image_size"], facts["task_classes"], facts["sensitive_classes"])
    if weights is None:
        weights = folder.sealed.checked(folder.edge)
    elif weights.is_file():
        folder.sealed.check_digest(folder.edge, file_digest(weights))
    load_weights(edge, weights)
    return ReleasingEdge(edge.eval(), mechanism_of(config, facts["n_train"], folder))


def load_tail(run: Path) -> CloudTail:
    """The trained cloud tail: releases ``(B, *release_shape)`` in, logits of every task out.

    Args:
        run: A run folder, or the folder of ``privhier cloud``, which is all that a cloud has.

    Returns:
        In evaluation mode, on the CPU.

    Raises:
        CheckpointError: Training has not finished there, or a file was altered since.
    """
    cloud, folder = CloudFolder(run), RunFolder(run)
    if cloud.config.exists():
        cloud.finished()
        shared = load_shared(cloud.sealed.checked(cloud.config))
        hello = Hello.decode(cloud.sealed.read_json(cloud.edges)[0].encode())
        _, tail = build_network(
            shared.model.model_copy(update={"weights": "none"}),
            image_size=shared.image_size,
            task_classes=dict(hello.task_classes),
            sensitive_classes={},
            seed=shared.seed,
            matched_filter=shared.matched_filter,
        )
        load_weights(tail, cloud.sealed.checked(cloud.tail))
        return tail.eval()
    facts, config = finished_training(folder), saved_config(folder)
    plain = config.model_copy(update={"model": config.model.model_copy(update={"weights": "none"})})
    _, tail = network_of(plain, facts["image_size"], facts["task_classes"], facts["sensitive_classes"])
    load_weights(tail, folder.sealed.checked(folder.tail))
    return tail.eval()


def _facts(folder: RunFolder) -> dict[str, Any]:
    if folder.edge_facts.exists() and not folder.training.exists():
        facts: dict[str, Any] = folder.sealed.read_json(folder.edge_facts)
        return facts
    return finished_training(folder)
