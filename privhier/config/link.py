"""The link between edge and cloud as two processes: how far ahead, how much kept, how patient."""

from __future__ import annotations

from pydantic import Field

from privhier.config.base import Section


class LinkConfig(Section):
    """How the edge sends. It changes when something arrives, never what: it is not part of the hash."""

    queue: int = Field(4, ge=1, le=1024)
    """Messages the edge may be ahead of the cloud while the line is up; then it waits."""
    spool_mib: int = Field(1024, ge=1)
    """Size of unsent messages kept on the edge's disk while the line is down, in MiB."""
    retry_seconds: float = Field(30, gt=0, le=3600)
    """Largest pause between two attempts to connect."""
