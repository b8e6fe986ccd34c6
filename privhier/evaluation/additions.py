"""Attacks that were added to a finished run: what is written down of each, beside the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from privhier.evaluation.score import Part
from privhier.storage.sealed import Sealed, altered, parsed_json

SCHEMA = "privhier.additions/1"
AttackSection = Literal["attribute", "verification", "reconstruction", "property", "membership"]


class Addition(Part):
    """An attack that was run on a finished run's stored releases; its configuration does not name it."""

    section: AttackSection
    """What it attacks: the key under ``attacks`` where a configuration would name it."""
    attack: str
    """Registered name."""
    name: str
    """As scores have it: the registered name, numbered (``mlp#2``) where another attacker has it already."""
    options: dict[str, Any]
    """As they were given; the others have their defaults."""
    seed: int
    """Of everything it drew: the run's."""
    date: str
    """When it was added, UTC, ISO 8601."""
    git: dict[str, Any]
    """Commit of the code that ran it, and whether it was altered."""

    @property
    def described(self) -> str:
        """``mlp (attribute, epochs=5)``."""
        given = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"{self.name} ({self.section}{given})"

    def is_shown_as(self, attack: str) -> bool:
        """Whether scores under this name (``mlp#2@eavesdropper``) are this one's."""
        return attack.partition("@")[0] == self.name


class _File(Part):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["privhier.additions/1"] = Field(alias="schema")
    additions: list[Addition]


def read_additions(sealed: Sealed, path: Path) -> list[Addition]:
    """What was added to a run, oldest first; nothing where nothing was.

    Raises:
        CheckpointError: The file was removed, edited or damaged.
    """
    if not sealed.knows(path):
        return []
    try:
        return _File.model_validate(parsed_json(path, sealed.read(path))).additions
    except ValidationError as error:
        raise altered(path, f"is not a {SCHEMA} file: {error}") from error


def write_additions(sealed: Sealed, path: Path, additions: Sequence[Addition]) -> None:
    """Write what was added to a run, whole."""
    rows = [one.model_dump(mode="json") for one in additions]
    sealed.write_json(path, {"schema": SCHEMA, "additions": rows})


def addition_of(additions: Sequence[Addition], attack: str) -> Addition | None:
    """Which of them the scores under this name are of; None: an attacker that the configuration names."""
    return next((one for one in additions if one.is_shown_as(attack)), None)
