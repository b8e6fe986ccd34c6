"""The verbs ``privhier edge``, ``cloud``, ``shared`` and ``join``: the two halves as two processes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privhier.cli.arguments import ConfigArgument, Overrides, ResumeOption
from privhier.cli.console import note, say
from privhier.errors import ConfigError, OutputError
from privhier.process.stopping import interruptible

if TYPE_CHECKING:
    from privhier.config.shared import SharedConfig

_KEPT = "this half stopped before its end; everything that was charged or received is kept"
CertsOption = Annotated[
    Path | None,
    typer.Option("--certs", help="Folder with cert.pem, key.pem and authority.pem (see `privhier certs`)"),
]
PlainOption = Annotated[
    bool, typer.Option("--plain", help="No encryption, no proof of who is who; on loopback only")
]


def edge(
    config: ConfigArgument,
    overrides: Overrides = None,
    cloud: Annotated[
        str, typer.Option("--cloud", metavar="HOST:PORT", help="Where the cloud listens")
    ] = "127.0.0.1:50051",
    certs: CertsOption = None,
    plain: PlainOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Edge folder; default: runs/NAME-HASH-edge")
    ] = None,
    resume: ResumeOption = False,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Own every N-th group of people only")
    ] = None,
) -> None:
    """The edge's half: keeps the images, trains, releases, and sends up what the cloud may have."""
    from privhier.config import load_config
    from privhier.distributed.remote import Shard, open_edge, run_edge
    from privhier.uplink.tls import channel_credentials

    resolved = load_config(config, overrides or ())
    secure = _secured(cloud, certs, plain, key="--cloud")
    part = Shard.parse(shard) if shard else Shard()
    credentials = channel_credentials(secure, edge=part.number) if secure else None
    suffix = f"-edge{part.number}" if part.of > 1 else "-edge"
    folder = out or Path("runs") / f"{resolved.folder_name}{suffix}"
    if resolved.privacy.noise_source == "seeded" and resolved.privacy.noise_seed is None:
        note("note: the noise comes from the run's seed, which the cloud's configuration holds; a simulation")
    again = f"privhier edge {config} ... --out {folder} --resume"
    with ExitStack() as stack, interruptible(again, kept=_KEPT):
        job = open_edge(resolved, folder, resume=resume, shard=part, stack=stack, report=note)
        run_edge(job, cloud, credentials=credentials, report=note)
    say(f"edge: {folder}", f"next: privhier join {folder} CLOUD_RUN --out RUN")


def cloud(
    config: ConfigArgument,
    overrides: Overrides = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where edges come in")
    ] = "127.0.0.1:50051",
    certs: CertsOption = None,
    plain: PlainOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Cloud folder; default: runs/NAME-RUNID-cloud")
    ] = None,
    resume: ResumeOption = False,
    edges: Annotated[int, typer.Option("--edges", min=1, max=65536, help="Edges of every run")] = 1,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Messages that may wait for training before edges wait")
    ] = 4,
    records: Annotated[int, typer.Option("--records", min=1, help="Images that one edge may own at most")] = 2
    ** 24,
    also: Annotated[
        list[Path] | None, typer.Option("--also", help="Configuration of one more run to serve; repeatable")
    ] = None,
    linger: Annotated[
        float,
        typer.Option("--linger", min=0, help="When all is trained: longest wait for edges to part, seconds"),
    ] = 60.0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the training")] = None,
    sync: Annotated[bool, typer.Option(help="Flush every message to disk before acknowledging it")] = True,
) -> None:
    """The cloud's half: takes releases, trains the tail on them, and has no way to answer."""
    import torch

    from privhier.config.shared import load_shared
    from privhier.distributed.remote import open_cloud
    from privhier.uplink.inbox import Capacity
    from privhier.uplink.tls import server_credentials

    secure = _secured(listen, certs, plain, key="--listen")
    credentials = server_credentials(secure) if secure else None
    resolved = [load_shared(config, overrides or ()), *(load_shared(path) for path in also or ())]
    runs = [(one, _cloud_folder(one, out, many=len(resolved) > 1)) for one in resolved]
    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    again = f"privhier cloud {config} ... --out {runs[0][1]} --resume"
    with ExitStack() as stack, interruptible(again, kept=_KEPT):
        served = open_cloud(
            runs,
            listen,
            credentials=credentials,
            device=device,
            capacity=Capacity(edges, queue, records),
            resume=resume,
            sync=sync,
            stack=stack,
            report=note,
        )
        note(f"listening on port {served.server.port} for {edges} edge(s) of {len(runs)} run(s)")
        served.run(linger=linger)
    for _, folder in runs:
        say(f"cloud: {folder}")


def shared(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", help="The file to write")] = Path("shared.yaml"),
) -> None:
    """Write the part of a configuration that the cloud needs, and nothing private, to a file."""
    from privhier.config.shared import load_shared
    from privhier.storage.files import write_atomic

    part = load_shared(config, overrides or ())
    if out.exists():
        raise OutputError(
            key="--out", value=str(out), rule="exists already", remedy="Choose another name or remove it"
        )
    write_atomic(out, part.to_yaml())
    say(f"shared: {out} (run {part.run_id})")


def join(
    edge: Annotated[Path, typer.Argument(metavar="EDGE_RUN", help="Folder of a finished edge")],
    cloud: Annotated[Path, typer.Argument(metavar="CLOUD_RUN", help="Folder of its finished cloud")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to make")],
) -> None:
    """Put both halves into one run folder, for `attack` and `report`."""
    from privhier.distributed.join import join as put_together

    session = put_together(edge, cloud, out)
    say(f"joined: {session.folder.root}", f"next:   privhier attack {session.folder.root}")


def _cloud_folder(config: SharedConfig, out: Path | None, *, many: bool) -> Path:
    name = f"{config.name}-{config.run_id[:10]}-cloud"
    if out is None:
        return Path("runs") / name
    return out / name if many else out


def _secured(address: str, certs: Path | None, plain: bool, *, key: str) -> Path | None:
    """The folder of certificates, or None for plain text, which is for loopback and only when asked."""
    from privhier.uplink.tls import is_loopback

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(
            key=key, value=address, rule="must read HOST:PORT", remedy="For instance: 127.0.0.1:50051"
        )
    if plain and certs is not None:
        raise ConfigError(
            key="--plain", value="--certs", rule="exclude each other", remedy="Give one of them"
        )
    if plain and not is_loopback(host.strip("[]")):
        raise ConfigError(
            key="--plain",
            value=address,
            rule="plain text is for loopback addresses only",
            remedy="Make certificates with `privhier certs DIR --host NAME` and give --certs",
        )
    if not plain and certs is None:
        raise ConfigError(
            key="--certs",
            value=None,
            rule="both ends show certificates",
            remedy="Make them with `privhier certs DIR`, or on loopback ask for --plain",
        )
    return certs
