"""What an uplink is: a place to put messages made of releases. Nothing comes back."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from privhier.uplink.outgoing import OutgoingMessage


@runtime_checkable
class Uplink(Protocol):
    """Carries encoded releases from edge to cloud, and takes nothing else."""

    def send(self, message: OutgoingMessage) -> None:
        """Send one message; raises ``UplinkError`` for anything but an ``OutgoingMessage``."""
        ...
