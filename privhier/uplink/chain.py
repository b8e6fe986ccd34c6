"""The running digest over an edge's messages: an acknowledgement speaks of content, not of a count.

The digest after message n is SHA-256 of the digest before it and the SHA-256 of the message; before the
first it is 32 zero bytes. Both ends compute it from what they hold, so it tells neither anything new.
"""

from __future__ import annotations

import hashlib

START = bytes(32)
"""The running digest before the first message."""
CHAIN_BYTES = len(START)


def digest(data: bytes) -> str:
    """SHA-256 of a message, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def extend(chain: bytes, one: str) -> bytes:
    """The running digest after a message whose own digest is ``one``."""
    return hashlib.sha256(chain + bytes.fromhex(one)).digest()
