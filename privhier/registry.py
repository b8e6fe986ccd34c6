"""One tiny registry for everything that is chosen by name."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from privhier.errors import ContractError, PrivhierError, PrivhierWarning, UnknownNameError

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def nearest(value: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """What to do about a name nobody knows: the nearest known ones, then all of them.

    Args:
        value: The name as it was given; upper and lower case are compared as equal.
        known: The names there are.
        otherwise: Said in place of the list, where that would be too long to read.

    Example:
        >>> nearest("resnet81", ["vgg16", "resnet18"])
        'Did you mean resnet18? Known: vgg16, resnet18'
        >>> nearest("weight", [])
        'There are none'
    """
    names = list(known)
    near = near_names(value, names)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    listed = f"Known: {', '.join(names)}" if names else "There are none"
    return f"{hint}{listed if otherwise is None else otherwise}"


def near_names(value: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names nearest to one that nobody knows, the nearest first; none that are far."""
    lowered: dict[str, list[str]] = {}
    for name in known:
        lowered.setdefault(name.lower(), []).append(name)
    close = difflib.get_close_matches(value.lower(), lowered, n=most, cutoff=0.5)
    return [name for match in close for name in lowered[match]][:most]


class Registry(Generic[T]):
    """Names to objects of one kind, each of them checked when it is registered.

    An entry is registered by the decorator ``@registry.register("name")`` where it is defined; one import
    line in the room's ``builtin.py`` makes it known. Third parties add entries through the entry-point
    group ``privhier.<kind>`` (for instance ``privhier.defenses``); the entry point's name is the
    registered name. One that does not load, or breaks the contract, is reported by a ``PrivhierWarning`` at
    the first look and by an error when it is asked for, and hides nobody else. The same object may be
    registered twice; a class of ``__main__`` defined anew, as in a notebook, takes the place of the old.

    Args:
        kind: Plural noun of what is registered, e.g. ``"backbones"``.
        key: The configuration key that chooses from it, used in error messages.
        builtin: The module whose import registers our own entries; imported at the first look.
        check: Yields every rule of the contract that an entry breaks.

    Example:
        >>> colors: Registry[int] = Registry("colors", key="paint.color")
        >>> _ = colors.register("red")(1)
        >>> colors.get("red")
        1
    """

    def __init__(
        self,
        kind: str,
        *,
        key: str,
        builtin: str | None = None,
        check: Callable[[Any], Iterator[str]] | None = None,
    ) -> None:
        self.kind = kind
        self.key = key
        self._builtin = builtin
        self._check = check
        self._entries: dict[str, T] = {}
        self._broken: dict[str, ContractError] = {}
        self._filled = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that checks its argument and stores it under ``name``.

        Raises:
            ContractError: A name that is taken or no name, or an entry that breaks the contract.
        """

        def add(entry: T) -> T:
            self._add(name, entry)
            return entry

        return add

    def get(self, name: str, *, key: str | None = None, among: Iterable[str] | None = None) -> T:
        """Look ``name`` up.

        Args:
            name: A registered name.
            key: The configuration key it stands under; None: the registry's own.
            among: The names that may stand there; None: all.

        Raises:
            UnknownNameError: No such name; the message names the nearest known ones.
            ContractError: An entry point of that name that does not load or breaks the contract.
        """
        self._fill()
        known = self.names() if among is None else list(among)
        if name in known:
            return self._entries[name]
        if name in self._broken and name not in self._entries:
            raise self._broken[name]
        raise UnknownNameError(
            key=key or self.key,
            value=name,
            rule=f"must be one of the registered {self.kind}"
            + (f" that {key} takes" if among is not None else ""),
            remedy=nearest(name, known),
        )

    def names(self) -> list[str]:
        """All registered names, sorted; without what is broken."""
        self._fill()
        return sorted(self._entries)

    def broken(self) -> dict[str, ContractError]:
        """Entry points that cannot be used, by name, and why."""
        self._fill()
        return dict(self._broken)

    def _add(self, name: str, entry: T) -> None:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise self._refusal(name, "is no name: letters, digits, - and _", "Give it such a name")
        if name in self._entries and self._entries[name] is entry:
            return
        if name in self._entries and not _again(self._entries[name], entry):
            raise self._refusal(name, "is registered twice", "Give one of the two another name")
        faults = [] if self._check is None else list(self._check(entry))
        if faults:
            shown = getattr(entry, "__qualname__", repr(entry))
            raise self._refusal(name, f"{shown} breaks the contract: {'; '.join(faults)}", "Mend the class")
        self._entries[name] = entry

    def _refusal(self, name: object, rule: str, remedy: str) -> ContractError:
        remedy = f"{remedy}; CONTRIBUTING.md has a worked example of each kind"
        return ContractError(key=f"{self.kind}.register", value=name, rule=rule, remedy=remedy)

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True
        try:
            if self._builtin is not None:
                import_module(self._builtin)
        except BaseException:
            self._filled = False  # or the next look would find a part of them and say that this is all
            raise
        for point in entry_points(group=f"privhier.{self.kind}"):
            try:
                self._add(point.name, point.load())
            except (Exception, SystemExit) as error:  # whatever a stranger's module raises: it is reported
                what = error.rule if isinstance(error, PrivhierError) else f"{type(error).__name__}: {error}"
                owner = point.dist.name if point.dist is not None else "its package"
                self._broken[point.name] = ContractError(
                    key=f"entry point {point.name} of privhier.{self.kind}",
                    value=point.value,
                    rule=f"cannot be used: {what}",
                    remedy=f"Mend {owner}, or uninstall it; everything else works without it",
                )
                warnings.warn(str(self._broken[point.name]), PrivhierWarning, stacklevel=3)


def _again(old: object, new: object) -> bool:
    """Whether a class is one of a notebook (or a script's) that was defined anew under the same name."""
    places = [(getattr(one, "__module__", ""), getattr(one, "__qualname__", "")) for one in (old, new)]
    return places[0] == places[1] and places[0][0] == "__main__"


def offered(name: str, package: str, builtin: Sequence[str], also: Mapping[str, str]) -> Any:
    """What a room offers under ``name``, imported at the first use (PEP 562).

    Args:
        name: A class that one of ``builtin`` lists, a key of ``also``, or ``__all__``: the names there are.
        package: The room, for the message.
        builtin: Modules that list our own classes.
        also: Further names, and the module each is in.

    Raises:
        AttributeError: Nothing of that name; it is then looked for among the room's modules.
    """
    if name in also:
        return getattr(import_module(also[name]), name)
    if name == "__all__" or name[:1].isupper():  # modules have small letters: nothing is loaded for them
        classes = {
            key: value
            for module in builtin
            for key, value in vars(import_module(module)).items()
            if isinstance(value, type)
        }
        if name == "__all__":
            return sorted([*classes, *also])
        if name in classes:
            return classes[name]
        hint = nearest(name, [*classes, *also])
        raise AttributeError(f"module {package!r} has no attribute {name!r}. {hint}")
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
