"""Leakage budgets (MaSS; Chen and others, ICML 2024): so many nats of each secret may go up, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from privhier.defenses.adversarial import AdversarialDefense, PanelOptions, classes_of, device_of
from privhier.defenses.base import (
    UNKNOWN_LABEL,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    classification_loss,
    defenses,
)
from privhier.defenses.task_cells import task_cells
from privhier.errors import ConfigError
from privhier.metrics.information import entropy, information_beyond_chance
from privhier.models.edge import EdgeSegment

_KEY = "defense.options.budgets"
Nats = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LeakBudgetOptions(PanelOptions):
    """Options of leakage budgets; ``weight`` multiplies the whole penalty."""

    budgets: list[Nats] = Field(default_factory=list)
    """Nats of every sensitive attribute that may leak, in order, or one number for all; none: what the task
    labels say of it, without which the task cannot be done."""
    l1: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the excess over a budget."""
    l2: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of its square."""
    decay: float = Field(0.95, ge=0, lt=1)
    """Of the moving averages of the adversaries' cross-entropies, a step."""


@defenses.register("leak_budget")
class LeakBudget(AdversarialDefense):
    r"""The edge is penalized for a secret only while more of it leaks than its budget allows.

    An adversary's cross-entropy bounds what it reads: :math:`I(Z; S_k) \ge H(S_k) - CE_k`. With the budget
    :math:`m_k` in nats and the excess

    .. math:: v_k = \max(0,\ H(S_k) - \mathrm{EMA}\,CE_k - m_k),

    the penalty of MaSS, :math:`\sum_k l_2 v_k^2 + l_1 v_k`, has the gradient of

    .. math:: -\sum_k \lambda_k\, CE(\bar a_k(z), s_k), \qquad \lambda_k = 2 l_2 v_k + l_1 [v_k > 0],

    which is what a record's loss gets, beside ``CE + sum_k CE(a_k(sg z), s_k)``; :math:`\bar a` is the
    adversary held constant. Where a secret has several adversaries, each has its own excess, and the penalty
    is their mean. Moving averages, moved after each step, stand for the mean over all records; until one is
    measured, the adversary is taken to know everything.

    A budget below the floor, what the true task labels say of the secret, is refused before the first step:
    no release that does the task can keep it (MaSS, theorem on the operational bounds). The floor is
    :math:`I(S_k; Y)` on the training records, cautiously: 0 where the labels may be independent.
    """

    Options: ClassVar[type[DefenseOptions]] = LeakBudgetOptions
    options: LeakBudgetOptions
    entropies: Tensor
    budgets: Tensor
    averages: Tensor
    measured: Tensor

    @property
    def reads_data(self) -> bool:
        """Entropies, floors and the averages."""
        return True

    def attach(self, edge: EdgeSegment) -> None:
        """Its adversaries, copies of the exits, and room for what is measured."""
        super().attach(edge)
        secrets, adversaries = len(classes_of(edge)), 1 + self.options.adversaries
        uniform = torch.tensor(classes_of(edge), dtype=torch.float32).log()
        asked = torch.tensor(self._asked(secrets))
        made = {
            "entropies": uniform,
            "budgets": asked,
            "averages": torch.zeros(secrets, adversaries),
            "measured": torch.zeros(secrets, adversaries),
        }
        for name, value in made.items():
            self.register_buffer(name, value.to(device_of(edge)))

    def check(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Refuse a budget below its floor, before anything is written.

        Raises:
            ConfigError: Such a budget, or another number of budgets than of secrets.
        """
        names = edge.sensitive_names
        budgets = self._asked(len(names))
        for name, asked, floor in zip(names, budgets, label_floors(data), strict=True):
            if self.options.budgets and asked < floor:
                raise _infeasible(name, self.options.budgets, asked, floor)

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Entropies of the secrets and their floors, from the training labels."""
        counts = [
            np.bincount(labels[labels != UNKNOWN_LABEL].numpy(), minlength=classes)
            for labels, classes in zip(data.sensitive_labels, data.sensitive_classes, strict=True)
        ]
        self.entropies.copy_(torch.tensor([entropy(one) for one in counts]))
        if not self.options.budgets:
            self.budgets.copy_(torch.tensor(label_floors(data)))

    def _asked(self, secrets: int) -> list[float]:
        """The budget of every secret; 0 until the floors are known, where none is given."""
        budgets = list(self.options.budgets) or [0.0]
        if len(budgets) not in (1, secrets):
            raise ConfigError(
                key=_KEY,
                value=budgets,
                rule=f"must hold one budget for each of the {secrets} sensitive attributes, or one for all",
                remedy=f"Give {secrets} numbers, in the order of dataset.sensitive, or leave it out",
            )
        return budgets * secrets if len(budgets) == 1 else budgets

    @property
    def excess(self) -> Tensor:
        """By how many nats every adversary is over its secret's budget, ``(secrets, adversaries)``."""
        seen = torch.where(self.measured > 0, self.averages / self.measured.clamp_min(1e-12), 0)
        return (self.entropies[:, None] - seen - self.budgets[:, None]).clamp_min(0)

    @property
    def multipliers(self) -> Tensor:
        """Lambda of every adversary, ``(secrets, adversaries)``."""
        excess = self.excess
        return 2 * self.options.l2 * excess + self.options.l1 * (excess > 0)

    def penalty(self, batch: DefenseBatch) -> Tensor:
        """Minus lambda times the adversaries' cross-entropy, their mean summed over the secrets: ``(B,)``."""
        terms = []
        for multipliers, answers, labels in zip(
            self.multipliers, self.held(batch), batch.sensitive_labels, strict=True
        ):
            losses = torch.stack([classification_loss([logits], [labels]) for logits in answers])
            terms.append(-(multipliers[:, None] * losses).mean(0))
        return torch.stack(terms).sum(0)

    def after_step(self, batch: DefenseBatch) -> None:
        """Move the averages, where labels are known; then count the step as every such defense does."""
        decay = self.options.decay
        for secret, (answers, labels) in enumerate(
            zip(self.held(batch), batch.sensitive_labels, strict=True)
        ):
            known = labels != UNKNOWN_LABEL
            if not bool(known.any()):
                continue
            for number, logits in enumerate(answers):
                now = classification_loss([logits[known]], [labels[known]]).mean()
                self.averages[secret, number] = decay * self.averages[secret, number] + (1 - decay) * now
                self.measured[secret, number] = decay * self.measured[secret, number] + (1 - decay)
        super().after_step(batch)

    def restarted(self, number: int) -> None:
        """Who was drawn anew knows nothing yet, and what its average says is of another."""
        self.averages[:, 1 + number] = self.entropies
        self.measured[:, 1 + number] = 1


def label_floors(data: DefenseData) -> list[float]:
    """What all true task labels together say of every secret, in nats, on the records that have them all."""
    cells, known = task_cells(data.task_labels, data.task_classes)
    floors = []
    for labels, classes in zip(data.sensitive_labels, data.sensitive_classes, strict=True):
        both = known & (labels != UNKNOWN_LABEL)
        _, rows = torch.unique(cells[both], return_inverse=True)
        table = np.zeros((int(rows.max()) + 1 if len(rows) else 1, classes))
        np.add.at(table, (rows.numpy(), labels[both].numpy()), 1)
        floors.append(information_beyond_chance(table))
    return floors


def _infeasible(name: str, budgets: Sequence[float], asked: float, floor: float) -> ConfigError:
    least = -(-floor * 1000 // 1) / 1000  # rounded up: what is said to be enough is
    return ConfigError(
        key=_KEY,
        value=list(budgets),
        rule=f"allows {asked:g} nats of {name}, and the true task labels alone say {floor:.4f} of it: no "
        "release that does the task keeps this budget",
        remedy=f"Allow at least {least:.3f}, leave budgets out for the floors themselves, or choose a task "
        f"that says less of {name}",
    )
