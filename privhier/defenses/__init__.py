"""What shapes the edge's objective.

Every built-in class is here by name (``privhier.defenses.MaxEntropy``), beside the registry; nothing
is loaded before it is asked for.
"""

from __future__ import annotations

from typing import Any

from privhier.registry import offered

_BUILTIN = ("privhier.defenses.builtin",)
_ALSO = {
    "defenses": "privhier.defenses.base",
    "Defense": "privhier.defenses.base",
    "DefenseBatch": "privhier.defenses.batch",
    "DefenseData": "privhier.defenses.batch",
    "DefenseOptions": "privhier.defenses.base",
    "AdversarialOptions": "privhier.defenses.base",
    "classification_loss": "privhier.defenses.base",
    "task_loss_per_record": "privhier.defenses.base",
}
"""What else a new one is written or asked for with, and where it is."""


def __getattr__(name: str) -> Any:
    return offered(name, "privhier.defenses", _BUILTIN, _ALSO)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
