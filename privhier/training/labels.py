"""The task labels that go up: clear, or randomized once and kept in the run folder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.privacy.events import LabelEvent
from privhier.privacy.labels import flip_matrix, randomize
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.training.batches import TrainingData
from privhier.training.folder import RunFolder, lost_draw


def labels_to_send(config: RunConfig, data: TrainingData, folder: RunFolder, ledger: Ledger) -> Tensor:
    """int64 ``(N, n_tasks)``: what messages of training records carry. Other splits' rows are never sent.

    Randomized responses are charged, then drawn, then kept: a resumed run sends the same answers.

    Raises:
        CheckpointError: They were drawn from system entropy, and are gone: other answers would be a second
            response on the same labels.
    """
    if config.privacy.label_epsilon is None:
        return data.task
    epsilon = _share(config.privacy.label_epsilon, data)
    drawn = any(isinstance(event, LabelEvent) for event in ledger.events)
    if drawn and not folder.labels.exists() and config.privacy.noise_source == "system":
        raise lost_draw(folder.labels, "the randomized task labels of this run were charged and drawn once")
    for name, classes in data.task_classes.items():
        ledger.charge_labels(
            LabelEvent(
                split="train",
                records=len(data.splits.train),
                attribute=name,
                classes=classes,
                epsilon=epsilon,
                noise_source=config.privacy.noise_source,
            )
        )
    if not folder.sealed.knows(folder.labels):
        columns = []
        for column, (name, classes) in enumerate(data.task_classes.items()):
            seeded = config.privacy.noise_source == "seeded"
            source = SeededNoise(config.noise_seed, "labels", name) if seeded else SystemNoise()
            columns.append(randomize(data.task[:, column], epsilon, classes, source))
        folder.sealed.write_array(folder.labels, torch.stack(columns, dim=1).numpy())
    return torch.from_numpy(folder.sealed.read_array(folder.labels))


def flips(label_epsilon: float | None, task_classes: Mapping[str, int]) -> list[Tensor] | None:
    """The flip matrix of every task, which the cloud knows; None where labels are clear."""
    if label_epsilon is None:
        return None
    return [flip_matrix(label_epsilon / len(task_classes), classes) for classes in task_classes.values()]


def _share(label_epsilon: float, data: TrainingData) -> float:
    """One task's part of what all labels of a record may cost."""
    return label_epsilon / len(data.task_classes)
