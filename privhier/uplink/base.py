"""What an uplink is: a place to put bytes. Nothing comes back."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Uplink(Protocol):
    """Carries encoded ``ReleaseMessage`` bytes from edge to cloud."""

    def send(self, data: bytes) -> None:
        """Send one message; raises ``UplinkError`` if it is not a valid one."""
        ...
