"""One cell of the study: a network, a regime and a bit rate, trained for a few short epochs over a real line.

Baselines and product run as two processes at the ends of one shaped line, edge on core 0, cloud on core 1.
The record of a cell holds milliseconds per image for each phase of its regime (``regimes.phase_epochs``). The
first epoch is a warm-up and left out, but where it is a phase of its own (images up once).
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regimes import IMAGES, base_regime, link_ms
from shaped_link import Link, shaped_link
from whole_network import WIDE

from privhier.config import RunConfig

HERE = Path(__file__).parent
CORES = {"edge": 0, "cloud": 1}
SPLITS = {"train": 0.8, "val": 0.05, "aux": 0.05, "test": 0.1}
"""While times are measured: what is not trained on is kept small."""
PORT = 50051
PRIVHIER = str(Path(sys.executable).with_name("privhier"))


class CellError(RuntimeError):
    """A process of a cell failed or took too long; carries the end of its log."""


def sized(config: RunConfig, images: int) -> list[str]:
    """Overrides that leave about ``images`` training images."""
    total = round(images / SPLITS["train"])
    overrides = [f"dataset.splits.{name}={share}" for name, share in SPLITS.items()]
    if config.dataset.name == "synthetic":
        return [
            *overrides,
            f"dataset.options.images={total}",
            f"dataset.options.identities={max(20, total // 5)}",
        ]
    return [*overrides, f"dataset.limit={total}"]


def run_cell(
    path: Path,
    config: RunConfig,
    regime: str,
    rate_mbit: float,
    *,
    images: int,
    epochs: int,
    timeout: float,
    work: Path,
    relay: bool = False,
) -> dict[str, Any]:
    """Measure one cell.

    Args:
        path: The network's configuration; ``config`` is the same, loaded.
        regime: One of ``regimes.REGIMES``.
        rate_mbit: Of the line, each way.
        images: About how many training images an epoch has.
        epochs: How many epochs (release-once: of the edge alone, and of the cloud).
        timeout: Seconds after which the cell has failed.
        work: Scratch folder; removed when the cell is done, kept when it fails.
        relay: Shape with a relay over loopback.

    Raises:
        CellError: See there.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    overrides = [*sized(config, images), *(WIDE if regime.endswith("_wide") else ())]
    kind, arguments = base_regime(regime), [str(path.resolve()), *overrides]
    began = time.perf_counter()
    with shaped_link(rate_mbit, relay=relay) as link:
        if kind in ("joint", "release_once"):
            found = _product(link, arguments, kind, epochs, timeout, work, rate_mbit)
        else:
            found = _baseline(link, arguments, kind, epochs, timeout, work)
        found["shaped_by"] = link.shaped_by
    shutil.rmtree(work)
    return {
        "network": config.name,
        "regime": regime,
        "rate_mbit": rate_mbit,
        "epochs": epochs,
        "wall_seconds": time.perf_counter() - began,
        **found,
    }


def _baseline(
    link: Link, arguments: list[str], kind: str, epochs: int, timeout: float, work: Path
) -> dict[str, Any]:
    script = [sys.executable, str(HERE / "baselines.py")]
    common = [*arguments, "--regime", kind, "--epochs", str(epochs)]
    logs = {side: work / f"{side}.log" for side in CORES}
    outs = {side: work / f"{side}.json" for side in CORES}
    processes = {}
    target: list[str] = []
    if kind != "edge_only":
        command = [*script, "cloud", *common, "--host", link.host, "--out", str(outs["cloud"])]
        processes["cloud"] = _start(link, "cloud", command, logs["cloud"])
        port = _read_port(processes["cloud"], logs["cloud"], r"^(\d+)$", timeout=60)
        target = ["--cloud", link.dial(port)]
    command = [*script, "edge", *common, *target, "--out", str(outs["edge"])]
    processes["edge"] = _start(link, "edge", command, logs["edge"])
    _wait(processes, logs, timeout)
    sides = {side: json.loads(outs[side].read_text()) for side in processes}
    return {**baseline_phases(kind, sides), **_wire(link, kind, sides), "sides": sides}


def baseline_phases(kind: str, sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Phases of a baseline from its entries: the side that trains the network's end counts."""
    entries = sides["edge" if kind == "edge_only" else "cloud"]
    each = [1000 * entry["seconds"] / entry["images"] for entry in entries]
    later = sum(each[1:]) / len(each[1:])
    once = kind in IMAGES and kind.endswith("once")
    phases = {"first": each[0], "cached": later} if once else {"epoch": later}
    return {"phases": phases, "images": entries[0]["images"]}


def _wire(link: Link, kind: str, sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Bytes on the line per image of an epoch that sends, and of payload."""
    sent = sum(entry["images"] for entry in sides["edge"] if entry["bytes_up"])
    if not sent:
        return {"up": 0.0, "down": 0.0, "payload_up": 0.0}
    total = link.wire_bytes()
    payload = sum(entry["bytes_up"] for entry in sides["edge"])
    return {"up": total["up"] / sent, "down": total["down"] / sent, "payload_up": payload / sent}


def _product(
    link: Link, arguments: list[str], kind: str, epochs: int, timeout: float, work: Path, rate_mbit: float
) -> dict[str, Any]:
    joint = kind == "joint"
    alone = 0 if joint else epochs
    schedule = {"pretrain": alone, "joint": epochs if joint else 0, "cloud": alone}
    arguments = [*arguments, *(f"schedule.{name}_epochs={count}" for name, count in schedule.items())]
    secure = {side: ["--plain"] for side in CORES}
    if link.host != "127.0.0.1":  # off loopback the product takes mutual TLS only
        certs = work / "certs"
        made = subprocess.run(
            [PRIVHIER, "certs", str(certs), "--host", link.host], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise CellError(f"privhier certs: {made.stderr or made.returncode}")
        secure = {side: ["--certs", str(certs / side)] for side in CORES}
    logs = {side: work / f"{side}.log" for side in CORES}
    port = PORT if link.host != "127.0.0.1" else _free_port()
    place = ["--listen", f"{link.host}:{port}", "--threads", "1", "--out", str(work / "cloud")]
    processes = {
        "cloud": _start(
            link, "cloud", [PRIVHIER, "cloud", *arguments, *place, *secure["cloud"]], logs["cloud"]
        )
    }
    _read_port(processes["cloud"], logs["cloud"], r"listening on port (\d+)", timeout=60)
    place = ["--cloud", link.dial(port), "--out", str(work / "edge")]
    processes["edge"] = _start(
        link, "edge", [PRIVHIER, "edge", *arguments, *place, *secure["edge"]], logs["edge"]
    )
    _wait(processes, logs, timeout)
    sides = {side: json.loads((work / side / "link.json").read_text()) for side in CORES}
    payload = json.loads((work / "edge" / "edge.json").read_text())["uplink"]["bytes"]
    return {**product_phases(kind, sides, link.wire_bytes(), payload, rate_mbit), "sides": sides}


def product_phases(
    kind: str,
    sides: Mapping[str, Sequence[Mapping[str, Any]]],
    wire: Mapping[str, int],
    payload: int,
    rate_mbit: float,
) -> dict[str, Any]:
    """Phases of the product from both folders' ``link.json``, the line's bytes and those of all messages.

    A joint epoch is the longer of what either side took for it: the edge may be a few batches ahead when it
    ends its own, and the cloud does not count its checkpoint. The cloud's first epoch of release-once counts
    from its first message on, so what the line takes for that one is added.
    """
    edge, cloud = sides["edge"], sides["cloud"]
    sending = [row for row in edge if row["phase"] == ("joint" if kind == "joint" else "release")]
    images = sending[0]["records"]
    size = _mean([row["bytes"] for row in sending]) / images
    up = size * wire["up"] / payload
    if kind == "joint":
        pairs = zip(sending, (row for row in cloud if row["phase"] == "joint"), strict=True)
        each = [max(row["seconds"], other["seconds"]) for row, other in pairs]
        phases = {"epoch": _mean(each[1:])}
    else:
        alone = [row["seconds"] for row in edge if row["phase"] == "pretrain"]
        trained = [row["seconds"] for row in cloud if row["phase"] == "cloud"]
        first = trained[0] + link_ms(up, rate_mbit) * images / sending[0]["messages"] / 1000
        phases = {"pretrain": _mean(alone[1:]), "release": first, "cloud": _mean(trained[1:])}
    # Validation and test releases go up too, in the same wrapping.
    return {
        "phases": {name: 1000 * seconds / images for name, seconds in phases.items()},
        "images": images,
        "up": up,
        "down": wire["down"] * size / payload,
        "payload_up": size,
    }


def joint_bounds(record: Mapping[str, Any]) -> dict[str, float]:
    """Edge, link and cloud of a measured joint cell by themselves, ms per image, first epoch left out."""
    images, rate = record["images"], record["rate_mbit"]
    edge = [row for row in record["sides"]["edge"] if row["phase"] == "joint"][1:]
    cloud = [row for row in record["sides"]["cloud"] if row["phase"] == "joint"][1:]
    return {
        "edge": 1000 * _mean([row["compute_seconds"] for row in edge]) / images,
        "link": link_ms(record["up"], rate),
        "cloud": 1000 * _mean([row["busy_seconds"] for row in cloud]) / images,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _start(link: Link, side: str, command: list[str], log: Path) -> subprocess.Popen[Any]:
    with log.open("w") as stream:
        return link.popen(side, command, core=CORES[side], stdout=stream, stderr=subprocess.STDOUT)


def _read_port(process: subprocess.Popen[Any], log: Path, pattern: str, *, timeout: float) -> int:
    """The port a process names in its log."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        match = re.search(pattern, log.read_text(), re.MULTILINE)
        if match:
            return int(match[1])
        time.sleep(0.1)
    raise CellError(f"no port in {log}:\n{log.read_text()[-2000:]}")


def _wait(processes: Mapping[str, subprocess.Popen[Any]], logs: Mapping[str, Path], timeout: float) -> None:
    """Until all have ended well; the first failure ends the cell."""
    end = time.monotonic() + timeout
    while any(process.poll() is None for process in processes.values()):
        failed = [side for side, process in processes.items() if process.poll()]
        if failed or time.monotonic() > end:
            break
        time.sleep(0.2)
    for side, process in processes.items():
        if process.poll() != 0:
            what = "took too long" if process.poll() is None else f"ended with {process.poll()}"
            raise CellError(f"{side} {what}:\n{logs[side].read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
