"""The attacks module: fresh, strong attackers that see a view and nothing else.

Every built-in class is here by name (``privhier.attacks.NearestNeighbors``), beside the registries; nothing
is loaded before it is asked for.
"""

from __future__ import annotations

from typing import Any

from privhier.registry import offered

_BUILTIN = (
    "privhier.attacks.builtin",
    "privhier.attacks.membership.builtin",
    "privhier.attacks.embedders.builtin",
)
_ALSO = {
    "attacks": "privhier.attacks.base",
    "Attack": "privhier.attacks.base",
    "AttackResult": "privhier.attacks.base",
    "ColumnAttack": "privhier.attacks.parts.column_scores",
    "View": "privhier.attacks.view",
    "option": "privhier.config.choices",
    "membership_attacks": "privhier.attacks.membership.base",
    "MembershipAttack": "privhier.attacks.membership.base",
    "MembershipResult": "privhier.attacks.membership.base",
    "embedders": "privhier.attacks.embedders.base",
    "FaceEmbedder": "privhier.attacks.embedders.base",
}
"""What else a new one is written or asked for with, and where it is."""


def __getattr__(name: str) -> Any:
    return offered(name, "privhier.attacks", _BUILTIN, _ALSO)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
