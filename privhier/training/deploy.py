"""A trained edge, loaded from its run folder and ready to release, and the tail that reads its releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privhier.config.shared import load_shared
from privhier.errors import DataError
from privhier.models.edge import EdgeSegment
from privhier.models.inputs import normalize
from privhier.models.letter_expander import LetterExpander
from privhier.models.network import build_network
from privhier.models.tail import CloudTail
from privhier.models.weights import load_weights
from privhier.privacy.noise import NoiseSource, SystemNoise
from privhier.privacy.release import Release, ReleaseMechanism
from privhier.storage.sealed import file_digest
from privhier.training.clip import mechanism_of
from privhier.training.cloud import cloud_logits
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
        image_size: S, height and width in pixels of the images it was trained on.

    Every call draws fresh noise, in training and in evaluation mode alike. Each call on the same
    record is one more release of it: the caller keeps count.
    """

    def __init__(
        self,
        edge: EdgeSegment,
        mechanism: ReleaseMechanism,
        noise: NoiseSource | None = None,
        *,
        image_size: int,
    ) -> None:
        super().__init__()
        self.edge, self.mechanism, self.image_size = edge, mechanism, image_size
        self.noise = noise if noise is not None else SystemNoise()

    @torch.no_grad()
    def forward(self, images: Tensor | npt.NDArray[np.uint8]) -> Release:
        """uint8 images ``(B, 3, S, S)``, tensor or array, to their release.

        Its ``values`` are float32 ``(B, *feature_shape)``; of letters, ``letters`` int64 ``(B, M)`` go up.

        Raises:
            DataError: Another type, rank or size. A float image in [0, 1] would be released as black.
        """
        check_images(images, self.image_size)
        pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
        features = self.edge.features(normalize(pixels)).float()
        return self.mechanism.sanitize(features, self.noise, self.edge.codebook)


def check_images(images: Any, size: int) -> None:
    """Refuse what is no batch of uint8 images ``(B, 3, size, size)``, tensor or array.

    Raises:
        DataError: See there.
    """
    kind, shape = str(getattr(images, "dtype", type(images).__name__)), tuple(getattr(images, "shape", ()))
    if kind.removeprefix("torch.") != "uint8" or len(shape) != 4 or shape[1:] != (3, size, size):
        raise DataError(
            key="images",
            value=f"{kind} {shape}",
            rule=f"must be uint8 (B, 3, {size}, {size})",
            remedy="Resize and convert them as the run's data set was: values from 0 to 255, channels first",
        )


def _check_letters(given: npt.NDArray[Any], count: int) -> None:
    known = given.size == 0 or 0 <= given.min() <= given.max() < count
    if given.dtype.kind not in "iu" or not known:
        ends = f", from {given.min():g} to {given.max():g}" if given.size else ""
        raise DataError(
            key="releases",
            value=f"{given.dtype}{ends}",
            rule=f"must be letters: whole numbers from 0 to {count - 1}",
            remedy="Give the release itself, or its letters; its values are the letters' codes",
        )


class TrainedTail:
    """The cloud's half, ready to read releases.

    Attributes:
        network: Releases in, logits of every task out; in evaluation mode, on the CPU.
        release_shape: Of one record's release.
        classes: Task attribute to its classes' names, in the order of the logits; a cloud that ran alone was
            never told them and has numbers.
    """

    def __init__(
        self, network: CloudTail, release_shape: Sequence[int], classes: Mapping[str, Sequence[str]]
    ) -> None:
        self.network, self.release_shape = network, tuple(release_shape)
        numbers = {name: [str(one) for one in range(count)] for name, count in network.task_classes.items()}
        self.classes = {name: list(classes.get(name, known)) for name, known in numbers.items()}

    def probabilities(self, releases: Release | npt.ArrayLike) -> dict[str, npt.NDArray[np.float32]]:
        """Task attribute to float32 ``(B, classes)``.

        Args:
            releases: What ``load_edge`` gives, or its payload: float32 ``(B, *release_shape)``, of letters
                int64 ``(B, M)``.

        Raises:
            DataError: Another shape, values that are not finite, or for letters anything but whole numbers
                below their count: their codes (``release.values``) are no letters.
        """
        given = np.asarray(releases.payload() if isinstance(releases, Release) else releases)
        shape = self.release_shape
        if given.shape[1:] != shape or given.ndim != len(shape) + 1 or not np.isfinite(given).all():
            raise DataError(
                key="releases",
                value=f"{given.dtype} {given.shape}",
                rule=f"must be finite, of shape (B, {', '.join(map(str, shape))})",
                remedy="Give what the run's own edge released",
            )
        if isinstance(self.network.expander, LetterExpander):
            _check_letters(given, self.network.expander.letters)
        logits = cloud_logits(self.network, given, device=torch.device("cpu"))
        return {name: torch.softmax(one, 1).numpy() for name, one in zip(self.classes, logits, strict=True)}

    def predict(self, releases: Release | npt.ArrayLike) -> dict[str, npt.NDArray[np.str_]]:
        """Task attribute to the name of each record's likeliest class, ``(B,)``. See ``probabilities``."""
        found = self.probabilities(releases)
        return {name: np.array(self.classes[name])[rows.argmax(1)] for name, rows in found.items()}


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
    mechanism = mechanism_of(config, facts["n_train"], folder)
    return ReleasingEdge(edge.eval(), mechanism, image_size=facts["image_size"])


def load_tail(run: Path) -> CloudTail:
    """The trained cloud tail: releases ``(B, *release_shape)`` in, logits of every task out.

    Args:
        run: A run folder, or the folder of ``privhier cloud``, which is all that a cloud has.

    Returns:
        In evaluation mode, on the CPU.

    Raises:
        CheckpointError: Training has not finished there, or a file was altered since.
    """
    return load_trained_tail(run).network


def load_trained_tail(run: Path) -> TrainedTail:
    """The tail with its classes' names. Arguments and errors are those of ``load_tail``."""
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
        return TrainedTail(tail.eval(), hello.shape, {})
    facts, config = finished_training(folder), saved_config(folder)
    plain = config.model_copy(update={"model": config.model.model_copy(update={"weights": "none"})})
    _, tail = network_of(plain, facts["image_size"], facts["task_classes"], facts["sensitive_classes"])
    load_weights(tail, folder.sealed.checked(folder.tail))
    return TrainedTail(tail.eval(), facts["release_shape"], facts.get("task_class_names", {}))


def _facts(folder: RunFolder) -> dict[str, Any]:
    if folder.edge_facts.exists() and not folder.training.exists():
        facts: dict[str, Any] = folder.sealed.read_json(folder.edge_facts)
        return facts
    return finished_training(folder)
