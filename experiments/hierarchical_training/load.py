"""One cloud, many edges: throughput, memory, time to an acknowledgement and fairness, with and without fsync.

    python experiments/hierarchical_training/load.py --out runs/load
    python experiments/hierarchical_training/load.py --cells 32x1 --payloads wide --no-sync
    python experiments/hierarchical_training/load.py --cells 1x1 32x1 --ingest --slow-sync 5

A cell is EDGESxRUNS: so many edges of each of so many runs. The cloud is the product's in a process of its
own: server, inbox, journal and training. Edges are simulated: the product's uplink with a spool of its own
that sends prepared messages as a schedule would, and no training: what is measured is link and cloud.
All cells send about the same number of messages. ``--ingest`` leaves out the cloud's training too,
``--slow-sync`` gives it a slower disk, ``--pin`` keeps it on the first core and the edges on the others.

Edges send as fast as they are let, so the time to an acknowledgement is that of a full queue (``--pause``
makes them slower), and they share the machine with the cloud: its own cost is its CPU time per message. Keep
the spools on another disk (``--spools``), as other machines' would be. In a row, ``load`` is the machine's
load when it began; ``rss`` is the cloud's resident set, ``heap`` what of it no file backs, ``heap_late``
the latter's growth in the cell's second half. Jain's index is over the edges' records/s of joint training,
while all of them were sending.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from load_cell import measure
from load_edges import PAYLOADS, Plan

from privhier.storage.files import write_json


def show(row: dict[str, Any]) -> None:
    """One line a cell."""
    print(
        f"{row['edges']}x{row['runs']} {row['payload']:6s} {'fsync   ' if row['sync'] else 'no fsync'} "
        f"{row['messages']} messages (joint: {row['joint_bytes']} B) in {row['seconds']:.1f} s: "
        f"{row['messages_s']:.0f}/s, {row['records_s']:.0f} records/s, {row['mb_s']:.2f} MB/s; "
        f"cloud {row['cpu_s']:.1f} s CPU ({row['cpu_ms']:.2f} ms each), RSS {row['rss_peak_mb']:.0f} MB "
        f"(+{row['rss_growth_mb']:.0f}, heap +{row['heap_growth_mb']:.0f}, late {row['heap_late_mb']:+.1f}); "
        f"acknowledged in {row['ack_ms']:.1f} ms (p95 {row['ack_p95_ms']:.1f}); "
        f"Jain {row['jain']:.3f}, slowest/fastest {row['slowest_to_fastest']:.2f} "
        f"over {row['window_s']:.1f} s; "
        f"{row['syncs']} fsyncs of {row['sync_ms']:.2f} ms; load {row['load']:.1f}"
        + "".join(f"; WRONG: {text}" for text in row["wrong"]),
        flush=True,
    )


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """``load.json`` and ``load.csv`` in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "load.json", rows)
    with (out / "load.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "wrong": "; ".join(row["wrong"])} for row in rows)


def main() -> None:
    """Measure the cells asked for, one after the other."""
    default = Plan(1, 1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", nargs="+", default=["32x1", "1x32", "1x1"], metavar="EDGESxRUNS")
    parser.add_argument("--payloads", nargs="+", choices=list(PAYLOADS), default=list(PAYLOADS))
    parser.add_argument("--sync", nargs="+", choices=["on", "off"], default=["on", "off"])
    parser.add_argument("--no-sync", dest="sync", action="store_const", const=["off"])
    parser.add_argument("--messages", type=int, default=default.messages, help="joint, of all edges")
    parser.add_argument("--joint", type=int, default=default.joint, help="joint epochs")
    parser.add_argument("--queue", type=int, default=default.queue, help="of the cloud")
    parser.add_argument("--ahead", type=int, default=default.ahead, help="link.queue of the edges")
    parser.add_argument("--ingest", action="store_true", help="take messages only; no training")
    parser.add_argument("--slow-sync", type=float, default=0, metavar="MS", help="added to every fsync")
    parser.add_argument("--pause", type=float, default=0, metavar="MS", help="between an edge's messages")
    parser.add_argument("--tls", action="store_true", help="mutual TLS instead of plain text")
    parser.add_argument("--pin", action="store_true", help="cloud on the first core, edges on the others")
    parser.add_argument("--processes", type=int, default=default.processes, help="of the simulated edges")
    parser.add_argument("--spools", type=Path, help="a folder on another disk than the cloud's")
    parser.add_argument("--out", type=Path, help="folder for load.json and load.csv")
    options = parser.parse_args()
    common = replace(
        default,
        messages=options.messages,
        joint=options.joint,
        queue=options.queue,
        ahead=options.ahead,
        training=not options.ingest,
        slow_sync=options.slow_sync / 1000,
        pause=options.pause / 1000,
        tls=options.tls,
        pin=options.pin,
        processes=options.processes,
        spools=options.spools,
    )
    rows: list[dict[str, Any]] = []
    for cell in options.cells:
        edges, runs = (int(number) for number in cell.split("x"))
        for payload in options.payloads:
            for sync in options.sync:
                rows.append(
                    measure(replace(common, edges=edges, runs=runs, payload=payload, sync=sync == "on"))
                )
                show(rows[-1])
                if options.out is not None:
                    write(rows, options.out)
    if any(row["wrong"] for row in rows):
        raise SystemExit("not everything arrived exactly once")


if __name__ == "__main__":
    main()
