"""One cell of the load test: a real cloud, simulated edges in other processes, and what it all took."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch
from load_edges import STARTED, Plan, SimulatedEdge, Times

from privhier.config.shared import shared_part
from privhier.distributed.remote import Cloud, open_cloud
from privhier.uplink.certificates import make_certificates
from privhier.uplink.chain import digest
from privhier.uplink.inbox import Capacity
from privhier.uplink.journal import Journal
from privhier.uplink.spool import Spool
from privhier.uplink.tls import server_credentials

FORK = multiprocessing.get_context("fork")
UNBOUNDED = 10**9

Name = tuple[int, int]
"""Run, edge."""
Rates = Times
"""``(n,)``: records per second of each edge."""


def measure(plan: Plan, *, timeout: float = 300.0) -> dict[str, Any]:
    """Run one cell and return its row; ``wrong`` in it names what did not arrive exactly once.

    Raises:
        RuntimeError: An edge or the cloud failed, or took longer than ``timeout`` seconds.
    """
    root, children = Path(tempfile.mkdtemp(prefix="privhier-load-")), list[BaseProcess]()
    load = os.getloadavg()[0]
    try:
        if plan.tls:
            make_certificates(root / "certs", hosts=["127.0.0.1"], edges=plan.edges)
        times, used, memory = play(plan, root, children, time.monotonic() + timeout)
        row = summary(plan, list(times.values()), used, memory)
        return {**row, "load": round(load, 2), "wrong": check(plan, root)}
    finally:
        for child in children:
            child.kill()
            child.join()
        shutil.rmtree(root, ignore_errors=True)
        if plan.spools is not None:
            shutil.rmtree(plan.spools / root.name, ignore_errors=True)


def play(
    plan: Plan, root: Path, children: list[BaseProcess], deadline: float
) -> tuple[dict[Name, Times], dict[str, Any], list[tuple[float, float]]]:
    """Cloud and edges until both are through.

    Returns:
        Each edge's times; what the cloud used; its resident set and, of that, what no file backs, in
        bytes, as sampled.
    """
    here, there = FORK.Pipe()
    cloud = FORK.Process(target=cloud_process, args=(plan, root, there))
    children.append(cloud)
    cloud.start()
    there.close()
    port = _received([here], deadline, "cloud")[0]
    names = [(run, number) for number in range(plan.edges) for run in range(plan.runs)]
    count = min(plan.processes, len(names))
    start, pipes = FORK.Barrier(count + 1), []
    for place in range(count):
        mine, theirs = FORK.Pipe()
        arguments = (plan, root, port, names[place::count], start, theirs)
        worker = FORK.Process(target=edge_process, args=arguments)
        children.append(worker)
        worker.start()
        theirs.close()
        pipes.append(mine)
    start.wait(STARTED)
    memory: list[tuple[float, float]] = []
    process = psutil.Process(cloud.pid)
    while not here.poll(0.05) and time.monotonic() < deadline:
        info = process.memory_info()
        memory.append((info.rss, info.rss - info.shared))
        if any(child.exitcode for child in children):
            raise RuntimeError("a process of the cell failed; its traceback is above")
    used = _received([here], deadline, "cloud")[0]
    times = {name: found for part in _received(pipes, deadline, "edges") for name, found in part}
    if failed := {name: found for name, found in times.items() if isinstance(found, str)}:
        raise RuntimeError(f"edges failed: {failed}")
    return times, used, memory


def cloud_process(plan: Plan, root: Path, pipe: Connection) -> None:
    """The product's cloud; sends its port, and when it is through what it used."""
    _settle(plan, cloud=True)
    runs = [(shared_part(plan.config(run)), root / f"cloud{run}") for run in range(plan.runs)]
    with ExitStack() as stack:
        syncs = stack.enter_context(counted_syncs(plan.slow_sync))
        cloud = open_cloud(
            runs,
            "127.0.0.1:0",
            credentials=server_credentials(root / "certs" / "cloud") if plan.tls else None,
            device=torch.device("cpu"),
            capacity=Capacity(plan.edges, plan.queue if plan.training else UNBOUNDED),
            sync=plan.sync,
            stack=stack,
        )
        before = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(cloud.server.port)
        if plan.training:
            cloud.run(linger=20.0)
        else:
            take_only(cloud)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        pipe.send({"cpu": cpu, "syncs": len(syncs), "sync": float(np.median(syncs)) if syncs else 0.0})


def take_only(cloud: Cloud) -> None:
    """Serve until every edge has parted; train nothing."""
    cloud.server.start()
    while not all(job.parted for job in cloud.jobs):
        time.sleep(0.02)
    cloud.server.stop()
    for job in cloud.jobs:
        job.close()


def edge_process(
    plan: Plan, root: Path, port: int, names: list[Name], start: Barrier, pipe: Connection
) -> None:
    """Some of the edges, a thread each; sends their times, or what went wrong."""
    _settle(plan, cloud=False)
    edges = [SimulatedEdge(plan, run, number, root) for run, number in names]
    start.wait(STARTED)
    threads = [threading.Thread(target=edge.run, args=(port,)) for edge in edges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.send([(edge.name, repr(edge.error) if edge.error else edge.times()) for edge in edges])


@contextmanager
def counted_syncs(extra: float) -> Iterator[list[float]]:
    """Seconds of every flush of a journal in this process; each sleeps ``extra`` more."""
    real, seconds = os.fdatasync, list[float]()

    def timed(descriptor: int) -> None:
        started = time.perf_counter()
        real(descriptor)
        time.sleep(extra)
        seconds.append(time.perf_counter() - started)

    with patch.object(os, "fdatasync", timed):
        yield seconds


def summary(
    plan: Plan, times: list[Times], used: dict[str, Any], memory: list[tuple[float, float]]
) -> dict[str, Any]:
    """The row of a cell."""
    everything = np.concatenate(times)
    count, seconds = len(everything), everything[:, 1].max() - everything[:, 0].min()
    waits = 1000 * (everything[:, 1] - everything[:, 0])
    # Messages of other phases hold more records: fairness is judged where all send the same.
    joint = [edge[edge[:, 4] > 0] for edge in times]
    begin, end = window(joint)
    rates = rates_in(joint, begin, end)
    rss, heap = np.array(memory).T / 2**20
    return {
        **{name: value for name, value in asdict(plan).items() if name != "spools"},
        "messages": count,
        "records": int(everything[:, 2].sum()),
        "joint_bytes": int(np.median(np.concatenate(joint)[:, 3])),
        "seconds": round(seconds, 3),
        "messages_s": round(count / seconds, 1),
        "records_s": round(everything[:, 2].sum() / seconds, 1),
        "mb_s": round(everything[:, 3].sum() / seconds / 1e6, 3),
        "cpu_s": round(used["cpu"], 2),
        "cpu_ms": round(1000 * used["cpu"] / count, 3),
        "rss_peak_mb": round(rss.max(), 1),
        "rss_growth_mb": round(rss.max() - rss[0], 1),
        "heap_growth_mb": round(heap.max() - heap[0], 1),
        "heap_late_mb": round(heap[-1] - heap[len(heap) // 2], 1),
        "ack_ms": round(float(np.median(waits)), 2),
        "ack_p95_ms": round(float(np.percentile(waits, 95)), 2),
        "window_s": round(end - begin, 3),
        "window_records_s": round(rates.sum(), 1),
        "jain": round(jain(rates), 4),
        "slowest_to_fastest": round(float(rates.min() / rates.max()), 3),
        "syncs": used["syncs"],
        "sync_ms": round(1000 * used["sync"], 3),
    }


def jain(rates: Rates) -> float:
    """Jain, Chiu and Hawe's index of fairness: 1 where all are equal, 1/n where one has everything."""
    return float(rates.sum() ** 2 / (len(rates) * (rates**2).sum()))


def window(times: list[Times]) -> tuple[float, float]:
    """From when the last edge had its first message acknowledged to when the first edge had its last."""
    return max(edge[0, 1] for edge in times), min(edge[-1, 1] for edge in times)


def rates_in(times: list[Times], begin: float, end: float) -> Rates:
    """Records of each edge acknowledged after ``begin`` and not after ``end``, per second; NaN if never."""
    if not begin < end:
        return np.full(len(times), np.nan)
    counts = [edge[(edge[:, 1] > begin) & (edge[:, 1] <= end), 2].sum() for edge in times]
    return np.array(counts) / (end - begin)


def check(plan: Plan, root: Path) -> list[str]:
    """What is wrong with what the clouds hold: each edge's messages must be there, once, in order."""
    wrong = []
    for run in range(plan.runs):
        folder = root / f"cloud{run}"
        journal = Journal(folder / "journal")
        arrived: dict[int, list[tuple[Any, str]]] = {number: [] for number in range(plan.edges)}
        carried = Counter[str]()
        for number, place in enumerate(journal.places):
            arrived[place.edge].append((place.key, digest(journal.read(number))))
            carried[place.key[0]] += place.records
        for number, found in arrived.items():
            entries = Spool(plan.spool(root, run, number)).entries
            if found != [(entry.key, entry.digest) for entry in entries]:
                wrong.append(f"run {run}, edge {number}: what arrived is not what was spooled")
        due = {split: (plan.joint + 1) * plan.edges * records for split, records in plan.records().items()}
        if carried != due:
            wrong.append(f"run {run}: {dict(carried)} records, not {due}")
        if plan.training and not (folder / "cloud.json").exists():
            wrong.append(f"run {run}: its tail is not trained")
    return wrong


def _settle(plan: Plan, *, cloud: bool) -> None:
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))
    if plan.pin and len(cores) > 1:
        os.sched_setaffinity(0, cores[:1] if cloud else cores[1:])


def _received(pipes: list[Connection], deadline: float, who: str) -> list[Any]:
    found = []
    for pipe in pipes:
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise RuntimeError(f"{who}: not through in time")
        try:
            found.append(pipe.recv())
        except EOFError as error:
            raise RuntimeError(f"{who}: ended without a result") from error
    return found
