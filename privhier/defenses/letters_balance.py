"""Letters that say nothing of a secret: the optimal adversary on a finite alphabet, in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from privhier.defenses.adversaries import held_constant
from privhier.defenses.base import (
    UNKNOWN_LABEL,
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.prototypes import moved, shares_of, soft_letters
from privhier.defenses.task_cells import task_cells
from privhier.models.codebook import fit_codebook
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.letter_code import LetterCode

_UNSEEN = 1e-8
"""Share of a task cell below which nothing is known of a letter there, and nothing is said of it."""
_PRIOR = 1e-4
"""Share of all records, spread as their task cell is, that is added to every class: rare ones say little."""
_CHUNK = 4096


class LettersBalanceOptions(DefenseOptions):
    """Options of the penalty on what letters say."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Lambda: weight of the nats that letters say of a secret, against the task loss."""
    within_task: bool = True
    """Whether only what letters say beyond the task labels counts: no release that does the task can hide
    more."""
    temperature: float = Field(0.5, gt=0, allow_inf_nan=False)
    """Softness of the letters while training, in squared distances of a letter from the next one."""
    decay: float = Field(0.98, ge=0, lt=1)
    """What a step leaves of the moving averages."""


@defenses.register("letters_balance")
class LettersBalance(Defense):
    r"""The edge lowers what its letters tell the optimal adversary of every sensitive attribute.

    Of record i, :math:`\lambda \sum_c q_i(c) \log(\hat p(c | s_i) / \hat p(c))` is added, within task cells
    :math:`\hat p(c | s_i, y_i) / \hat p(c | y_i)`: q are the soft letters of its features, and the
    probabilities are moving averages, held constant. The mean is the (conditional) mutual information
    of letter and secret in nats; since its best adversary is Bayes' rule on the averages, none has to be
    trained, and its gradient is the information's own. Over groups of letters it is summed.

    Soft letters are a softmax of squared distances among what letters are told apart by (``LetterCode``).
    Until a code is fitted, letters are prototypes of the defense's own among the features, or among roots of
    the posteriors of the task exits as these are now, held constant; they follow by k-means with moving
    averages, and one that stands for nobody is put on a record drawn from the batch.
    """

    Options: ClassVar[type[DefenseOptions]] = LettersBalanceOptions
    options: LettersBalanceOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"letters", "clipped"})

    centers: Tensor
    filled: Tensor
    of_code: Tensor
    _task_sizes: tuple[int, ...] = ()

    @property
    def reads_data(self) -> bool:
        """See ``Defense``: it keeps moving averages of private labels."""
        return True

    def attach(self, edge: EdgeSegment) -> None:
        """Make the prototypes and the averages, ``(M, K, cells, classes)`` for each secret."""
        code = _code_of(edge)
        device = code.settled.device
        width = code.centers.shape[2] if code.by_posteriors else code.size
        self._task_sizes = tuple(head.n_classes for head in edge.task_heads)
        cells = math.prod(self._task_sizes) if self.options.within_task else 1
        self.register_buffer("centers", torch.zeros(code.groups, code.letters, width, device=device))
        self.register_buffer("filled", torch.zeros(code.groups, code.letters, device=device))
        self.register_buffer("of_code", torch.tensor(False, device=device))
        heads = [head for head in edge.adversarial_exits if isinstance(head, Exit)]
        for number, head in enumerate(heads):
            shape = (code.groups, code.letters, cells, head.n_classes)
            self.register_buffer(f"table_{number}", torch.zeros(shape, device=device))

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Prototypes by k-means on the training records, and what their letters say of each secret so far."""
        code = _code_of(edge)
        z = data.features()
        self.of_code.fill_(edge.codebook is not None)
        with torch.no_grad():
            if edge.codebook is None:
                parts = [
                    self._seen(edge, part.to(self.centers.device)).cpu() for part in torch.split(z, _CHUNK)
                ]
                seen = torch.cat(parts).flatten(1)
                fitted = fit_codebook(
                    seen, letters=code.letters, groups=code.groups, fit="kmeans", seed=data.seed
                )
                self.centers.copy_(fitted.values)
                self.filled.copy_(shares_of(fitted.letters_of(seen), code.letters))
            for number, secret in enumerate(data.sensitive_labels):
                table = self.table(number).zero_()
                for rows in torch.split(torch.arange(len(z)), _CHUNK):
                    soft = self.soft_letters(edge, z[rows].to(table.device))
                    labels = [column[rows].to(table.device) for column in (*data.task_labels, secret)]
                    table += self._joint(number, soft, labels) * (len(rows) / len(z))

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy, and the nats that a record's letters say: ``(B,)``."""
        losses = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        if bool(self.of_code) != (batch.edge.codebook is not None):
            return losses  # letters were found since the last step: nothing is known of them yet
        assert batch.clipped is not None
        soft = self.soft_letters(batch.edge, batch.clipped)
        said = torch.zeros_like(losses)
        for number, secret in enumerate(batch.sensitive_labels):
            cells, known = self._cells([*batch.task_labels, secret])
            ratios = log_ratios(self.table(number))[:, :, cells, secret.clamp_min(0)]
            said = said + known * (soft * ratios.permute(2, 0, 1)).sum(dim=(1, 2))
        return losses + self.options.weight * batch.strength * said

    def after_step(self, batch: DefenseBatch) -> None:
        """Move prototypes and averages by this batch."""
        edge = batch.edge
        assert batch.clipped is not None
        coded = edge.codebook is not None
        if coded and not bool(self.of_code):
            for table in self._tables():
                table.zero_()
            self.of_code.fill_(True)
        if not coded:
            dead = moved(self.centers, self.filled, self._seen(edge, batch.clipped), decay=self.options.decay)
            for table in self._tables():
                table[dead] = 0
        soft, decay = self.soft_letters(edge, batch.clipped), self.options.decay
        for number, secret in enumerate(batch.sensitive_labels):
            joint = self._joint(number, soft, [*batch.task_labels, secret])
            self.table(number).mul_(decay).add_(joint, alpha=1 - decay)

    def soft_letters(self, edge: EdgeSegment, clipped: Tensor) -> Tensor:
        """Soft letters of features ``(B, M * d)``: float32 ``(B, M, K)``, each group's sum 1."""
        code = edge.codebook
        if code is None:
            return soft_letters(self._seen(edge, clipped), self.centers, self.options.temperature)
        seen = code.seen_as(clipped).to(clipped.dtype)
        return soft_letters(seen, code.places.to(clipped.dtype), self.options.temperature)

    def table(self, number: int) -> Tensor:
        """Share of records by letter, task cell and class of this secret: ``(M, K, cells, classes)``."""
        return self.get_buffer(f"table_{number}")

    def _tables(self) -> Iterator[Tensor]:
        return (table for name, table in self.named_buffers() if name.startswith("table_"))

    def _seen(self, edge: EdgeSegment, z: Tensor) -> Tensor:
        """What prototypes are told apart by, ``(B, M, e)``; the exits are held constant."""
        code = _code_of(edge)
        if not code.by_posteriors:
            return z.view(len(z), code.groups, code.size)
        roots = []
        for head in edge.task_heads:
            logits = held_constant(head, head, z)
            # The root of a softmax, without the root's infinite slope at 0.
            roots.append((torch.log_softmax(logits, dim=1) / 2).exp())
        return torch.cat(roots, dim=1)[:, None]

    def _cells(self, labels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The task cell of every record, or 0, and whether cell and secret are known."""
        *tasks, secret = labels
        if not self.options.within_task:
            return torch.zeros_like(secret), secret != UNKNOWN_LABEL
        cells, known = task_cells(tasks, self._task_sizes)
        return cells, known & (secret != UNKNOWN_LABEL)

    def _joint(self, number: int, soft: Tensor, labels: list[Tensor]) -> Tensor:
        """Share of these records by letter, cell and class; shaped as the table."""
        cells, known = self._cells(labels)
        table = torch.zeros_like(self.table(number))
        places = cells * table.shape[3] + labels[-1].clamp_min(0)
        flat = table.flatten(2)
        flat.index_add_(2, places[known], soft[known].permute(1, 2, 0) / max(1, len(soft)))
        return flat.view_as(table)


def log_ratios(table: Tensor) -> Tensor:
    r"""What a letter says of a class in its task cell: :math:`\log(\hat p(c | s, y) / \hat p(c | y))`, nats.

    A class is taken for like its cell until enough of its records are seen; a letter that its cell does not
    know says nothing.

    Args:
        table: Shares of records, ``(..., K, cells, classes)``; all 0 where none were seen.

    Returns:
        The same shape.
    """
    of_cell = table.sum(dim=-1, keepdim=True)
    of_cell = of_cell / of_cell.sum(dim=-3, keepdim=True).clamp_min(_UNSEEN)
    of_class = table.sum(dim=-3, keepdim=True)
    known = of_cell > _UNSEEN
    likely = torch.where(known, of_cell, 1)
    ratios = (table + _PRIOR * likely) / ((of_class + _PRIOR) * likely)
    return torch.where(known, ratios.log(), 0)


def _code_of(edge: EdgeSegment) -> LetterCode:
    """The edge's code: a run without letters is refused before this is asked (``needs``)."""
    assert edge.code is not None
    return edge.code
