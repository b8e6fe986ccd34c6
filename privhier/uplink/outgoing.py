"""A message on its way up: made of releases that a ledger was charged for, and all that an uplink takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn
from weakref import WeakKeyDictionary

import numpy as np

from privhier.errors import ReleaseError, UplinkError
from privhier.privacy.ledger import Ledger
from privhier.privacy.release import Release, as_releases
from privhier.uplink.codec import IntArray, ReleaseMessage, encode


class OutgoingMessage:
    """Encoded releases; ``outgoing`` makes it and nobody else, as ``Release`` itself is made.

    Attributes:
        data: The bytes that go up.
    """

    __slots__ = ("__weakref__",)

    def __new__(cls, *given: object, **named: object) -> OutgoingMessage:
        """Refused."""
        raise _not_outgoing("an OutgoingMessage made by hand")

    def __init_subclass__(cls) -> None:
        """Refused."""
        raise _not_outgoing("a subclass")

    @property
    def data(self) -> bytes:
        """The bytes that go up."""
        return _content(self)[0]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise _not_outgoing("a copy or a pickle")


_DATA: WeakKeyDictionary[OutgoingMessage, tuple[bytes, Callable[[], None]]] = WeakKeyDictionary()
"""Bytes, and what tells the ledger that they were handed over; no constructor and no pickle reaches them."""


def outgoing(
    ledger: Ledger,
    releases: Release | Sequence[Release],
    *,
    run_id: str,
    split: str,
    phase: str,
    epoch: int,
    batch: int,
    records: IntArray,
    task_labels: IntArray | None = None,
    edge: int = 0,
) -> OutgoingMessage:
    """The message that carries these releases; for the other fields see ``ReleaseMessage``.

    Args:
        ledger: The account that was charged for them; it observes the message.
        releases: One, or several whose rows follow each other as ``records`` do; of one mechanism.

    Raises:
        ReleaseError: Something else than releases, releases of several mechanisms or noise sources, or values
            that were changed in place.
        GuaranteeError: See ``Ledger.observe``.
        UplinkError: A field breaks its rule, or the message would be too large.
    """
    made = as_releases(releases)
    ways = {(release.mechanism, release.noise_source) for release in made}
    if len(ways) != 1:
        raise ReleaseError(
            key="release",
            value=f"{len(ways)} ways of making a release",
            rule="the releases of one message are made by one mechanism, with noise of one source",
            remedy="Send what one mechanism made",
        )
    mechanism = made[0].mechanism
    message = ReleaseMessage(
        run_id=run_id,
        split=split,
        phase=phase,
        epoch=epoch,
        batch=batch,
        records=records,
        payload=np.concatenate([release.payload() for release in made]),
        task_labels=task_labels,
        wire=mechanism.wire,  # type: ignore[arg-type]  # checked by encode
        letters=mechanism.letters or None,
        edge=edge,
    )
    data = encode(message)
    handed = ledger.observe(split, phase, epoch, records, made)
    sent = object.__new__(OutgoingMessage)
    _DATA[sent] = data, handed
    return sent


def bytes_of(message: object) -> bytes:
    """The bytes of a message that may go up, for an uplink: its ledger hears that it was handed over.

    Raises:
        UplinkError: Anything but an ``OutgoingMessage``, bytes included.
    """
    if type(message) is not OutgoingMessage:
        raise _not_outgoing(type(message).__name__)
    data, handed = _content(message)
    handed()
    return data


def _content(message: OutgoingMessage) -> tuple[bytes, Callable[[], None]]:
    if (content := _DATA.get(message)) is None:
        raise _not_outgoing("an empty OutgoingMessage")
    return content


def _not_outgoing(value: str) -> UplinkError:
    return UplinkError(
        key="uplink.message",
        value=value,
        rule="only what outgoing() made of releases can go up, no bytes of another origin",
        remedy="Send what privhier.uplink.outgoing.outgoing(ledger, releases, ...) returns",
    )
