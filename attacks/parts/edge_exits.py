"""The edge's own exits as an attacker's networks: copied, renewed, averaged over releases."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.models.letter_code import LetterCode


class AveragedExits(nn.Module):
    """One exit for each of the T releases; their logits averaged with learned weights.

    Args:
        exits: T exits, each from ``(b, *release_shape)`` to ``(b, K)``.
    """

    def __init__(self, exits: list[nn.Module]) -> None:
        super().__init__()
        self.exits = nn.ModuleList(exits)
        self.weights = nn.Parameter(torch.full((len(exits),), 1 / len(exits)))

    def forward(self, releases: Tensor) -> Tensor:
        """Releases ``(b, T, *release_shape)`` to logits ``(b, K)``."""
        logits = torch.stack([head(releases[:, t]) for t, head in enumerate(self.exits)], dim=1)
        return (logits * self.weights[:, None]).sum(dim=1)


def own_exit(edge: EdgeSegment, target: str, n_classes: int) -> Exit | None:
    """A trainable copy of the edge's adversarial or task exit for the target, or None."""
    for names, exits in ((edge.sensitive_names, edge.adversarial_exits), (edge.task_names, edge.task_exits)):
        if target in names:
            head = exits[names.index(target)]
            if isinstance(head, Exit) and head.n_classes == n_classes:
                return _trainable(head)
    return None


def renewed_exit(edge: EdgeSegment, target: str, n_classes: int) -> Exit | None:
    """A copy of an exit with its last layer drawn anew: the target's own exit, else the first; or None."""
    exits = dict(zip(edge.task_names, edge.task_exits, strict=True))
    exits |= dict(zip(edge.sensitive_names, edge.adversarial_exits, strict=True))
    if not exits:
        return None
    head = exits.get(target, next(iter(exits.values())))
    if not isinstance(head, Exit):
        return None
    renewed = _trainable(head)
    last = renewed.layers[-1]
    assert isinstance(last, nn.Linear)
    renewed.layers[-1] = nn.Linear(last.in_features, n_classes).to(last.weight.device)
    renewed.n_classes = n_classes
    return renewed


class _OnLetters(nn.Module):
    """An exit that reads one-hot letters ``(b, M * K)`` through a trainable copy of their values."""

    def __init__(self, head: Exit, code: LetterCode) -> None:
        super().__init__()
        self.head, self.values = head, nn.Parameter(code.values.clone())

    def forward(self, letters: Tensor) -> Tensor:
        """One-hot letters to logits ``(b, K)``."""
        hot = letters.view(len(letters), *self.values.shape[:2])
        return torch.as_tensor(self.head(torch.einsum("bmk,mkd->bmd", hot, self.values).flatten(1)))


def reading(head: Exit | None, edge: EdgeSegment) -> nn.Module | None:
    """An exit that takes releases as the attacker sees them."""
    return head if head is None or edge.codebook is None else _OnLetters(head, edge.codebook)


def _trainable(head: Exit) -> Exit:
    own = copy.deepcopy(head)
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    return own
