"""A number of a result: its value, its interval, and the records behind it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """A part of a result: nothing unknown in it, nothing changed after it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Score(Part):
    """A number with its interval (bootstrap over groups) and the records it was computed on."""

    value: float
    """The number itself."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    n: int = Field(ge=0)
    """Records (of verification: pairs) behind it."""

    @model_validator(mode="after")
    def _ordered(self) -> Score:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high must hold, got {self.low}, {self.value}, {self.high}")
        return self
