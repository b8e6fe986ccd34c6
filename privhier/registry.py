"""One tiny registry for everything that is chosen by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from privhier.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind.

    Third parties add entries through the entry-point group ``privhier.<kind>``
    (for instance ``privhier.defenses``); the entry point's name is the registered name.

    Args:
        kind: Plural noun of what is registered, e.g. ``"backbones"``.
        key: The configuration key that chooses from it, used in error messages.

    Example:
        >>> colors: Registry[int] = Registry("colors", key="paint.color")
        >>> _ = colors.register("red")(1)
        >>> colors.get("red")
        1
    """

    def __init__(self, kind: str, *, key: str) -> None:
        self.kind = kind
        self.key = key
        self._entries: dict[str, T] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that stores its argument under ``name`` (raises on a name taken)."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind}: {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """Look ``name`` up; raises ``UnknownNameError`` naming the nearest known names."""
        self._load_plugins()
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=3, cutoff=0.4)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise UnknownNameError(
                key=self.key,
                value=name,
                rule=f"must be one of the registered {self.kind}",
                remedy=f"{hint}Known: {', '.join(self.names())}",
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._load_plugins()
        return sorted(self._entries)

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=f"privhier.{self.kind}"):
            self.register(point.name)(point.load())
