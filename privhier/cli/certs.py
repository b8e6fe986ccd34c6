"""The verb ``privhier certs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privhier.cli.console import say


def certs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder")],
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME_OR_IP",
            help="By which edges call the cloud; may be repeated; default: localhost, 127.0.0.1",
            show_default=False,
        ),
    ] = None,
    edges: Annotated[int, typer.Option("--edges", min=1, help="Certificates for this many edges")] = 1,
    days: Annotated[int, typer.Option("--days", min=1, help="How long they are valid")] = 30,
) -> None:
    """Make a test authority and certificates for mutual TLS between one cloud and its edges.

    The certificate of an edge names its number (edge-N.privhier): the cloud lets it greet as no other.
    """
    from privhier.uplink.certificates import make_certificates

    made = make_certificates(folder, hosts=host or ("localhost", "127.0.0.1"), edges=edges, days=days)
    say(
        f"for the cloud: {made.cloud}",
        *(f"for edge {number}:    {edge}" for number, edge in enumerate(made.edges)),
        f"keep to yourself: {made.authority}",
        f"valid until {made.until:%Y-%m-%d %H:%M} UTC",
    )
