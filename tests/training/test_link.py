"""Edge and cloud over a real connection: the same weights as in one process, and every release once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from privhier.distributed.join import join
from privhier.errors import CheckpointError, GuaranteeError, UplinkError
from privhier.privacy.agreement import check_agreement
from privhier.privacy.ledger import Ledger
from privhier.training import edge_job
from privhier.training.cloud_folder import CloudFolder
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.trained import load_trained
from privhier.uplink.journal import Journal


def weights(folder):
    return load_file(folder / "tail.safetensors")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("queue", [1, 4])
@pytest.mark.parametrize(("pretrain", "joint", "cloud"), [(0, 2, 0), (1, 0, 2), (1, 1, 2)])
def test_two_processes_end_in_the_weights_of_one(tmp_path, link, pretrain, joint, cloud, queue):
    config = link.make_config(pretrain, joint, cloud, link={"queue": queue})
    one = link.in_process(config, tmp_path / "one")
    link.run_both(config, tmp_path, capacity=link.Capacity(queue=queue))
    assert same(weights(tmp_path / "one"), weights(tmp_path / "cloud"))
    edges = [load_file(tmp_path / name / "edge.safetensors") for name in ("one", "edge")]
    assert same(*edges)
    ledgers = [Ledger.load(RunFolder(tmp_path / name).ledger).events for name in ("one", "edge")]
    assert sorted(map(repr, ledgers[0])) == sorted(map(repr, ledgers[1]))
    assert len(ledgers[1]) == 3 * config.schedule.releases_per_record
    totals = CloudFolder(tmp_path / "cloud").finished()["uplink"]
    assert totals == one.uplink


def test_both_halves_joined_are_the_run_of_one_process(tmp_path, link):
    config = link.make_config()
    one = link.in_process(config, tmp_path / "one")
    link.run_both(config, tmp_path)
    session = join(tmp_path / "edge", tmp_path / "cloud", tmp_path / "joined")
    joined = load_trained(config, session.prepared.data, session.folder)
    assert np.array_equal(joined.test_releases, one.test_releases)
    assert joined.uplink == one.uplink
    assert [row["phase"] for row in joined.history] == [row["phase"] for row in one.history]
    for mine, theirs in zip(joined.history, one.history, strict=True):
        assert mine.items() <= theirs.items()


def test_a_half_alone_is_no_run(tmp_path, link):
    config = link.make_config(1, 1, 0)
    job = link.run_both(config, tmp_path)
    with pytest.raises(CheckpointError, match="half"):
        load_trained(config, job.data, RunFolder(tmp_path / "edge"))


def test_several_edges_train_one_tail(tmp_path, link):
    from privhier.distributed.remote import Shard

    config = link.make_config(0, 2, 1)
    with link.cloud_at(config, tmp_path / "cloud", capacity=link.Capacity(2)) as (cloud, thread):
        jobs = [link.edge_at(config, tmp_path / f"edge{i}", shard=Shard(i, 2)) for i in range(2)]
        uplinks = [link.uplink_of(job, cloud.server.port) for job in jobs]
        for job, uplink in zip(jobs, uplinks, strict=True):
            job.run(uplink)
        thread.join(60)
    owned = [set(job.data.splits.train.tolist()) for job in jobs]
    assert not owned[0] & owned[1]
    journal = Journal(tmp_path / "cloud" / "journal")
    assert {place.edge for place in journal.places} == {0, 1}
    total = sum(sum(job.hello.records.values()) for job in jobs)
    assert CloudFolder(tmp_path / "cloud").finished()["uplink"]["records"] == 3 * total
    # Two edges under one seed must not draw the same noise for different people.
    first, second = (job.side.releaser.noise("train", "joint", 0, 0).gaussian((4,)) for job in jobs)
    assert not torch.equal(first, second)


def test_an_edge_answers_alone_while_there_is_no_cloud(tmp_path, link):
    config = link.make_config(2, 1, 0)
    job = link.edge_at(config, tmp_path / "edge")
    uplink = link.uplink_of(job, 9)  # nobody listens there
    uplink.close = uplink.abandon  # or it would wait for the cloud
    job.run(uplink)
    assert job.spool.waiting == len(job.spool.entries) > 0  # it trained on, into its spool
    edge = load_edge(tmp_path / "edge")
    releases = edge(job.data.pixels(job.data.splits.test[:8]))
    assert edge.edge.task_logits(releases)[0].shape == (8, 2)


@pytest.mark.parametrize(
    ("override", "field"),
    [({"seed": 1}, "run_id"), ({"model": {"bottleneck": {"kind": "dimension", "size": 5}}}, "run_id")],
)
def test_another_configuration_is_refused_with_both_values(tmp_path, link, override, field):
    config = link.make_config(0, 1, 0)
    with link.cloud_at(config, tmp_path / "cloud") as (cloud, _):
        job = link.edge_at(link.make_config(0, 1, 0, **override), tmp_path / "edge")
        with pytest.raises(UplinkError, match=field) as caught:
            job.run(link.uplink_of(job, cloud.server.port))
        assert job.hello.run_id in str(caught.value)
        assert cloud.jobs[0].config.run_id in str(caught.value)
        assert len(cloud.jobs[0].inbox.journal) == 0


def test_the_link_is_measured(tmp_path, link):
    job = link.run_both(link.make_config(1, 2, 1), tmp_path)
    edge = json.loads((tmp_path / "edge" / "link.json").read_text())
    cloud = json.loads((tmp_path / "cloud" / "link.json").read_text())
    assert [row["phase"] for row in edge] == ["pretrain", "joint", "joint", "release", "test"]
    assert [row["phase"] for row in cloud] == ["joint", "joint", "cloud"]
    joint = next(row for row in edge if row["phase"] == "joint")
    assert joint["records"] == len(job.data.splits.train)
    assert 0 < joint["compute_seconds"] <= joint["seconds"]
    assert 0 < cloud[0]["busy_seconds"] <= cloud[0]["seconds"]


def test_sabotage_a_release_past_the_ledger_is_found(tmp_path, link):
    job = link.run_both(link.make_config(0, 1, 0), tmp_path)
    carried = dict(job.spool.releases())
    check_agreement(job.side.ledger, carried)
    for key in carried:
        with pytest.raises(GuaranteeError):
            check_agreement(job.side.ledger, {**carried, key: carried[key] + 1})
    with pytest.raises(GuaranteeError):
        check_agreement(job.side.ledger, {**carried, ("train", "joint", 1): 3})


@pytest.mark.parametrize("source", ["seeded", "system"])
@pytest.mark.parametrize("stop", [1, 5, 7, 9])
def test_a_killed_edge_draws_no_release_again(tmp_path, link, source, stop):
    """Stopped after any message, the edge goes on; what was spooled is what arrives, charged once."""
    config = link.make_config(1, 1, 1, privacy={"noise_source": source})
    job = link.edge_at(config, tmp_path / "edge")
    append, spooled = job.spool.append, []

    def dying(message):
        entry = append(message)
        spooled.append(message.data)
        if len(spooled) == stop:
            raise KeyboardInterrupt
        return entry

    job.spool.append = dying
    uplink = link.uplink_of(job, 9)
    with pytest.raises(KeyboardInterrupt):
        job.run(uplink)
    uplink.abandon()
    link.run_both(config, tmp_path)
    journal = Journal(tmp_path / "cloud" / "journal")
    assert [journal.read(number) for number in range(stop)] == spooled
    events = Ledger.load(RunFolder(tmp_path / "edge").ledger).events
    assert len(events) == len({(event.split, event.phase, event.epoch) for event in events}) == 6
    assert len(journal.places) == len({place.key for place in journal.places})


def test_a_seeded_redraw_with_other_features_is_refused(tmp_path, link, monkeypatch):
    """The same noise on two features would cancel; a resumed edge must come to the same bytes."""
    config = link.make_config(0, 1, 0)
    job = link.edge_at(config, tmp_path / "edge")
    uplink = link.uplink_of(job, 9)
    uplink.close = uplink.abandon
    with monkeypatch.context() as patch:  # killed before its first checkpoint
        patch.setattr(edge_job, "save_checkpoint", lambda *args, **kwargs: None)
        job.run(uplink)
    again = link.edge_at(config, tmp_path / "edge")
    for parameter in again.side.edge.parameters():
        parameter.data.mul_(1.01)
    uplink = link.uplink_of(again, 9)
    with pytest.raises(UplinkError, match="other features"):
        again.run(uplink)
    uplink.abandon()


def test_a_full_disk_on_either_side_loses_nothing(tmp_path, link, monkeypatch):
    import privhier.uplink.journal as journal_room
    from privhier.errors import OutputError
    from privhier.uplink import spool as spool_room

    config = link.make_config(0, 1, 0)
    one = link.in_process(config, tmp_path / "one")
    job = link.edge_at(config, tmp_path / "edge")
    whole, calls = spool_room.whole_file, []

    def full(path):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return whole(path)

    monkeypatch.setattr(spool_room, "whole_file", full)
    uplink = link.uplink_of(job, 9)
    with pytest.raises(OutputError, match="No space left") as caught:
        job.run(uplink)
    uplink.abandon()
    assert caught.value.exit_code == 2
    assert len(job.spool.entries) == 2
    failures = []

    def slow(handle):
        if len(failures) < 3:
            failures.append(handle)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_room.os, "fdatasync", slow)
    link.run_both(config, tmp_path)
    assert len(failures) == 3
    assert CloudFolder(tmp_path / "cloud").finished()["uplink"] == one.uplink
    assert same(weights(tmp_path / "one"), weights(tmp_path / "cloud"))


def test_a_folder_belongs_to_one_process_and_one_shard(tmp_path, link):
    from contextlib import ExitStack

    from privhier.distributed.remote import Shard, open_edge
    from privhier.errors import ConfigError, OutputError

    config = link.make_config(0, 1, 0, privacy={"noise_source": "system"})
    with ExitStack() as stack:
        open_edge(config, tmp_path / "edge", shard=Shard(0, 2), stack=stack)
        with pytest.raises(OutputError, match="another process"):
            open_edge(config, tmp_path / "edge", resume=True, shard=Shard(0, 2), stack=stack)
    with pytest.raises(ConfigError, match="belongs to 0/2"):
        link.edge_at(config, tmp_path / "edge", shard=Shard(1, 2))


def test_a_resumed_release_must_be_the_one_that_was_charged(tmp_path, link):
    from dataclasses import replace

    config = link.make_config(0, 1, 0)
    job = link.edge_at(config, tmp_path / "edge")
    job.side.releaser.charge("train", "joint", 0, 120)
    job.side.releaser.charge("train", "joint", 0, 120)
    assert len(job.side.ledger.events) == 1
    job.side.releaser.mechanism = replace(job.side.mechanism, sigma=0.01)
    with pytest.raises(GuaranteeError, match="charged before"):
        job.side.releaser.charge("train", "joint", 0, 120)


def test_a_finished_cloud_ends_without_its_edge(tmp_path, link):
    config = link.make_config(0, 1, 0)
    link.run_both(config, tmp_path)
    with link.cloud_at(config, tmp_path / "cloud", linger=0.1) as (_, thread):
        thread.join(20)
        assert not thread.is_alive()


def test_the_number_of_edges_cannot_change(tmp_path, link):
    from privhier.errors import ConfigError

    config = link.make_config(0, 1, 0)
    link.run_both(config, tmp_path)
    with (
        pytest.raises(ConfigError, match="1 edges"),
        link.cloud_at(config, tmp_path / "cloud", capacity=link.Capacity(2)),
    ):
        pass
