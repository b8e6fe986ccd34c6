"""What a sweep varies: listed values, seeded draws, named variants."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from privhier.config import Section
from privhier.config.expressions import EXPRESSIONS, join_calls
from privhier.seeding import numpy_stream


class RandomDraws(Section):
    """Seeded draws; more of them (a larger ``n``) keep the first ones."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""
    n: int = Field(ge=1)
    """How many."""
    log: bool = False
    """Even on a logarithmic scale."""
    integer: bool = False
    """Rounded to whole numbers, each once."""
    seed: int = Field(0, ge=0)
    """Of these draws."""

    @model_validator(mode="after")
    def _ordered(self) -> RandomDraws:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 where log is true")
        if self.integer and self.high - self.low + 1 < self.n:
            raise ValueError("there are fewer integers between low and high than n")
        return self

    def draw(self, key: str) -> list[float]:
        """The values, rounded to six significant digits, each once."""
        rng, values = numpy_stream(self.seed, "sweep", key), dict[float, None]()
        while len(values) < self.n:
            u = float(rng.uniform())
            if self.log:
                value = float(np.exp(np.log(self.low) + u * (np.log(self.high) - np.log(self.low))))
            else:
                value = self.low + u * (self.high - self.low)
            values[round(value) if self.integer else float(f"{value:.6g}")] = None
        return list(values)


class Axis(Section):
    """One axis: a ``key`` with ``values`` or ``random`` draws, or a ``name`` with ``variants``."""

    key: str | None = None
    """The configuration key that ``values`` or ``random`` are for."""
    name: str | None = None
    """What the axis is called; axes of variants need one, others are called after their key."""
    values: list[Any] | None = None
    """The values one after the other."""
    random: RandomDraws | None = None
    """Seeded draws instead."""
    variants: dict[str, dict[str, Any]] | None = None
    """Names to the keys that each sets together, as ``key.path: value``."""

    @model_validator(mode="before")
    @classmethod
    def _expressions(cls, data: Any) -> Any:
        """Labels and settings show expressions as they are meant, not as YAML cut them."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("values"), list) and data.get("key") in EXPRESSIONS:
            data["values"] = [join_calls(value) for value in data["values"]]
        if isinstance(data.get("variants"), dict):
            data["variants"] = {
                name: {key: join_calls(v) if key in EXPRESSIONS else v for key, v in keys.items()}
                if isinstance(keys, dict)
                else keys
                for name, keys in data["variants"].items()
            }
        return data

    @model_validator(mode="after")
    def _kind(self) -> Axis:
        given = [self.values is not None, self.random is not None, self.variants is not None]
        if sum(given) != 1 or (self.key is None) != (self.variants is not None):
            raise ValueError("an axis has a key with values or random, or a name with variants")
        if self.variants is not None and not self.name:
            raise ValueError("an axis of variants has a name")
        if not (self.values or self.random or self.variants):
            raise ValueError("an axis is empty: it needs at least one value")
        return self

    @property
    def label(self) -> str:
        """What the axis is called."""
        return str(self.name or self.key)

    @property
    def keys(self) -> list[str]:
        """The configuration keys it sets."""
        if self.key is not None:
            return [self.key]
        return list(dict.fromkeys(key for keys in (self.variants or {}).values() for key in keys))

    def steps(self) -> list[tuple[Any, dict[str, Any]]]:
        """Each step's label and the keys it sets."""
        if self.variants is not None:
            return [(label, dict(keys)) for label, keys in self.variants.items()]
        values = self.random.draw(str(self.key)) if self.random is not None else self.values
        return [(value, {str(self.key): value}) for value in values or []]
