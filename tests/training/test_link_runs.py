"""Runs that share a cloud: what one edge claims, or one run's error, ends no other run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from privhier.errors import CheckpointError, OutputError
from privhier.storage.sealed import Sealed
from privhier.training.arriving import ArrivingBatches
from privhier.training.batches import ordered_batches
from privhier.training.cache import ReleaseCache
from privhier.training.cloud_folder import CloudFolder
from privhier.training.cloud_job import CloudJob
from privhier.uplink.frames import encode_frame
from privhier.uplink.inbox import MOST_RECORDS


def pair(link, root):
    """Two runs, and where the cloud keeps them."""
    configs = [link.make_config(0, 1, 1, name=f"run{i}", seed=i) for i in (0, 1)]
    return configs, [configs[0], root / "cloud0", configs[1], root / "cloud1"]


@pytest.mark.parametrize("claim", [2**28, 2**31 - 1, MOST_RECORDS + 1])
def test_a_claim_beyond_the_bound_is_refused_and_every_run_goes_on(tmp_path, link, claim):
    configs, both = pair(link, tmp_path)
    with link.cloud_at(*both) as (cloud, thread):
        jobs = [link.edge_at(config, tmp_path / f"edge{i}") for i, config in enumerate(configs)]
        greedy = replace(jobs[0].hello, records={**jobs[0].hello.records, "train": claim})
        acks, text = link.knock(cloud.server.port, greedy.encode())
        assert acks == []
        assert text.startswith("uplink.")
        for job in jobs:
            job.run(link.uplink_of(job, cloud.server.port))
        thread.join(60)
    for i in range(2):
        assert CloudFolder(tmp_path / f"cloud{i}").finished()


def test_a_large_claim_sets_nothing_aside_and_binds_nobody(tmp_path, link):
    """What the bound allows is taken at its word, and costs nothing until it comes."""
    config = link.make_config(0, 0, 1)
    job = link.edge_at(config, tmp_path / "edge")
    claim = replace(job.hello, records={**job.hello.records, "train": MOST_RECORDS - 10**6}, folder="1" * 32)
    process = psutil.Process()
    with link.cloud_at(config, tmp_path / "cloud", linger=0.5) as (cloud, thread):
        before = process.memory_info().rss
        acks, text = link.knock(cloud.server.port, claim.encode())
        assert (len(acks), text) == (1, "")
        thread.join(0.5)
        assert thread.is_alive()
        assert process.memory_info().rss - before < 2**25
        assert not (tmp_path / "cloud" / "edges.json").exists()
    with link.cloud_at(config, tmp_path / "cloud") as (cloud, thread):  # as after --resume
        job.run(link.uplink_of(job, cloud.server.port))
        thread.join(60)
    assert CloudFolder(tmp_path / "cloud").finished()
    assert len(json.loads((tmp_path / "cloud" / "edges.json").read_text())) == 1


def test_a_large_claim_with_a_message_costs_what_has_come(tmp_path, link):
    config = link.make_config(0, 0, 1)
    job = link.spooled(config, tmp_path / "edge")
    claim = replace(job.hello, records={**job.hello.records, "train": MOST_RECORDS - 10**6})
    process = psutil.Process()
    for _ in range(2):  # the second time as after --resume
        with link.cloud_at(config, tmp_path / "cloud", linger=0.5) as (cloud, thread):
            before = process.memory_info().rss
            acks, text = link.knock(cloud.server.port, claim.encode(), encode_frame(0, job.spool.read(0)))
            assert (len(acks), text) == (2, "")
            thread.join(0.5)
            assert thread.is_alive()
            assert process.memory_info().rss - before < 2**25
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "cloud").rglob("*") if path.is_file())
    assert used < 2**20


@pytest.mark.parametrize(
    "error", [ValueError("broken"), OutputError(key="--out", value=1, rule="is full", remedy="Free space")]
)
def test_an_error_of_one_run_ends_that_run_only(tmp_path, link, monkeypatch, error):
    configs, both = pair(link, tmp_path)
    errors, lines = [], []
    step = CloudJob._joint

    def failing(job, *arguments):
        if job.config.seed == 0:
            raise error
        return step(job, *arguments)

    monkeypatch.setattr(CloudJob, "_joint", failing)
    jobs = [link.spooled(config, tmp_path / f"edge{i}") for i, config in enumerate(configs)]
    for _ in range(2):  # and again after --resume
        errors.clear()
        with link.cloud_at(*both, errors=errors, report=lines.append, linger=5) as (cloud, thread):
            told = link.uplink_of(jobs[0], cloud.server.port, report=lines.append)
            again = link.edge_at(configs[1], tmp_path / "edge1")
            again.run(link.uplink_of(again, cloud.server.port))
            thread.join(60)
            told.abandon()
        assert errors == [error]
        assert CloudFolder(tmp_path / "cloud1").finished()
        assert any("this run has stopped" in line for line in lines)
    monkeypatch.setattr(CloudJob, "_joint", step)
    with link.cloud_at(*both, linger=1) as (cloud, thread):
        again = link.edge_at(configs[0], tmp_path / "edge0")
        again.run(link.uplink_of(again, cloud.server.port))
        thread.join(60)
    assert CloudFolder(tmp_path / "cloud0").finished()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 24])
@pytest.mark.parametrize("total", [1, 2, 7, 24, 25, 48, 49, 97])
def test_arriving_rows_are_cut_as_a_whole_cache_is(total, batch_size):
    rng = np.random.default_rng(total)
    rows = torch.arange(total)
    batches, got, at = ArrivingBatches(total, batch_size), [], 0
    while at < total:
        size = int(rng.integers(1, 2 * batch_size + 2))
        got += [z.tolist() for z, _ in batches.add(rows[at : at + size], rows[at : at + size])]
        at += size
    assert got == [part.tolist() for part in ordered_batches(np.arange(total), batch_size)]


def cache_in(folder) -> ReleaseCache:
    return ReleaseCache(folder / "cloud_cache", Sealed(folder))


def cached(folder) -> ReleaseCache:
    cache = cache_in(folder)
    writer = cache.begin(6, (2,), 1)
    for start in (0, 4):
        rows = np.arange(start, min(start + 4, 6))
        writer.add(np.stack([rows, rows], 1).astype(np.float32), rows, rows[:, None])
    writer.finish()
    return cache


def test_the_cache_is_what_came_and_every_flip_in_it_is_noticed(tmp_path):
    payload, records, labels = cached(tmp_path).load()
    assert payload.tolist() == [[n, n] for n in range(6)]
    assert records.tolist() == labels[:, 0].tolist() == list(range(6))
    for name in ("payload.npy", "records.npy", "labels.npy", "digests.json"):
        path = tmp_path / name if name == "digests.json" else tmp_path / "cloud_cache" / name
        good = path.read_bytes()
        for at in range(0, len(good), 7):
            if name == "digests.json" and good[at : at + 1].isspace():
                continue  # another blank says the same
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
            with pytest.raises(CheckpointError):
                cache_in(tmp_path).load()
        for bad in (b"", good[:-1], None):
            if name == "digests.json" and bad == good[:-1]:
                bad = good[: len(good) // 2]
            path.unlink() if bad is None else path.write_bytes(bad)
            with pytest.raises(CheckpointError):
                cache_in(tmp_path).load()
        path.write_bytes(good)
    cache_in(tmp_path).load()


def test_a_cache_is_begun_without_room_for_what_was_only_announced(tmp_path):
    cache = cache_in(tmp_path)
    cache.begin(2**40, (512,), 3)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1000
    assert not cache.complete


def test_a_journal_shorter_than_what_was_trained_on_is_an_error(tmp_path, link):
    config = link.make_config(0, 2, 0)
    link.run_both(config, tmp_path)
    folder = CloudFolder(tmp_path / "cloud")
    folder.done.unlink()  # as if it had not been done yet
    listing = json.loads(folder.sealed.path.read_text())
    del listing["files"][folder.done.name]
    folder.sealed.path.write_text(json.dumps(listing))
    path = folder.journal / "000000.log"
    path.write_bytes(path.read_bytes()[:3000])
    errors: list = []
    with link.cloud_at(config, folder.root, errors=errors, linger=0.1) as (_, thread):
        thread.join(20)
    assert ["were trained on" in error.rule for error in errors] == [True]
