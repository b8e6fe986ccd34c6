"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Scalar = bool | int | float | str | None


class Section(BaseModel):
    """A frozen section that forbids keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )


class Choice(Section):
    """Something chosen by name from a registry, with its own options; a bare string is the name."""

    name: str
    """Its name in the registry (``privhier list``)."""
    options: dict[str, Scalar | list[Scalar | dict[str, JsonValue]] | dict[str, JsonValue]] = Field(
        default_factory=dict
    )
    """Options of its own; ``privhier list KIND NAME`` shows them."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value
