"""What a mechanism made: the only thing that goes up, and nobody else can make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import numpy.typing as npt
import torch

from privhier.errors import ReleaseError
from privhier.privacy.mechanism import Mechanism


class Release:
    """Sanitized features, or letters, of a batch of records: the only thing that an uplink takes.

    ``ReleaseMechanism.sanitize`` makes it and nobody else: there is no constructor, no subclass and no copy,
    and an instance holds nothing itself, so that one made past the constructor is empty. Arithmetic and
    torch's functions see its values and give plain tensors. What goes up is a copy taken when it was made;
    values that were changed in place since are refused.

    Example:
        >>> Release(torch.zeros(4, 8))
        Traceback (most recent call last):
        ...
        privhier.errors.ReleaseError: release: 'Tensor' - only ReleaseMechanism.sanitize makes ...
    """

    __slots__ = ("__weakref__",)

    def __new__(cls, *given: object, **named: object) -> Release:
        """Refused."""
        what = [type(value).__name__ for value in (*given, *named.values())]
        raise _not_made(what[0] if what else "nothing")

    def __init_subclass__(cls) -> None:
        """Refused."""
        raise _not_made("a subclass")

    @property
    def values(self) -> torch.Tensor:
        """float32 ``(B, *shape)``, in the graph of the features they were made from."""
        return _made(self).values

    @property
    def mechanism(self) -> Mechanism:
        """What made it."""
        return _made(self).mechanism

    @property
    def noise_source(self) -> str:
        """``NoiseSource.kind`` of the noise it was made with."""
        return _made(self).noise_source

    @property
    def shape(self) -> torch.Size:
        """``(B, *shape)``."""
        return self.values.shape

    @property
    def letters(self) -> torch.Tensor | None:
        """The answers, int64 ``(B, M)``, where a release is made of letters."""
        return _made(self).letters

    def payload(self) -> npt.NDArray[Any]:
        """A copy of what goes up: values, float32 ``(B, *shape)``, or letters, int64 ``(B, M)``.

        Raises:
            ReleaseError: They were changed in place since it was made.
        """
        made = _made(self)
        now = made.values.detach().view(torch.int32) if made.letters is None else made.letters
        if not torch.equal(now, made.payload.view(now.dtype)):
            raise ReleaseError(
                key="release",
                value="values changed in place",
                rule="what goes up must be what ReleaseMechanism.sanitize made",
                remedy="Work on a copy: release.values.clone()",
            )
        return made.payload.cpu().numpy().copy()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's functions get the values."""
        return func(*_plain(args), **{name: _plain(value) for name, value in (kwargs or {}).items()})

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> torch.Tensor:
        return self.values[rows]

    def __add__(self, other: Any) -> torch.Tensor:
        return torch.add(self.values, _plain(other))

    def __sub__(self, other: Any) -> torch.Tensor:
        return torch.sub(self.values, _plain(other))

    def __mul__(self, other: Any) -> torch.Tensor:
        return torch.mul(self.values, _plain(other))

    def __truediv__(self, other: Any) -> torch.Tensor:
        return torch.div(self.values, _plain(other))

    def __neg__(self) -> torch.Tensor:
        return -self.values

    def __rsub__(self, other: Any) -> torch.Tensor:
        return torch.rsub(self.values, _plain(other))

    __radd__, __rmul__ = __add__, __mul__

    def __copy__(self) -> NoReturn:
        raise _not_made("a copy")

    def __deepcopy__(self, memory: object) -> NoReturn:
        raise _not_made("a copy")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise _not_made("a pickle")

    def __repr__(self) -> str:
        made = _made(self)
        return f"Release(shape={tuple(self.shape)}, {made.mechanism!r}, noise_source={made.noise_source!r})"


@dataclass(frozen=True, eq=False)
class _Made:
    """What a release holds; kept outside of it, where no constructor and no pickle reaches."""

    values: torch.Tensor
    letters: torch.Tensor | None
    payload: torch.Tensor
    mechanism: Mechanism
    noise_source: str


_MADE: WeakKeyDictionary[Release, _Made] = WeakKeyDictionary()


def make(
    values: torch.Tensor, letters: torch.Tensor | None, mechanism: Mechanism, noise_source: str
) -> Release:
    """A release of these values, or of these letters; for ``ReleaseMechanism.sanitize`` alone."""
    release = object.__new__(Release)
    payload = (values.detach() if letters is None else letters).clone()
    _MADE[release] = _Made(values, letters, payload, mechanism, noise_source)
    return release


def as_releases(value: object) -> list[Release]:
    """One release, or a list or tuple of them, as a list.

    Raises:
        ReleaseError: It is something else, or was not made by ``ReleaseMechanism.sanitize``.
    """
    found: list[Release] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if type(one) is not Release:
            raise _not_made(type(one).__name__)
        _made(one)
        found.append(one)
    return found


def _made(release: Release) -> _Made:
    made = _MADE.get(release)
    if made is None:
        raise _not_made("an empty Release")
    return made


def _plain(value: Any) -> Any:
    """The same with every release replaced by its values."""
    if isinstance(value, Release):
        return value.values
    if isinstance(value, tuple | list):
        return type(value)(_plain(one) for one in value)
    return value


def _not_made(value: str) -> ReleaseError:
    return ReleaseError(
        key="release",
        value=value,
        rule="only ReleaseMechanism.sanitize makes a release, and only a release can leave the edge",
        remedy="Pass the features through mechanism.sanitize(features, noise) and send what it returns",
    )
