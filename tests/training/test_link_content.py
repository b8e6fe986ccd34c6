"""An acknowledgement is of content: what was not sent is never taken for what was."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from privhier.distributed.join import join
from privhier.errors import GuaranteeError, UplinkError
from privhier.uplink.codec import decode, encode
from privhier.uplink.frames import encode_frame
from privhier.uplink.journal import Journal
from privhier.uplink.spool import Spool


def forged(data: bytes) -> bytes:
    message = decode(data)
    return encode(replace(message, payload=message.payload * 2))


@pytest.mark.parametrize("restart", [False, True])
def test_a_forgery_taken_while_the_edge_was_offline_ends_both_sides(tmp_path, link, restart):
    config, errors = link.make_config(0, 1, 0), []
    job = link.spooled(config, tmp_path / "edge")
    first = job.spool.read(0)
    with link.cloud_at(config, tmp_path / "cloud", errors=errors, linger=0.5) as (cloud, thread):
        acks, text = link.knock(cloud.server.port, job.hello.encode(), encode_frame(0, forged(first)))
        assert (len(acks), text) == (2, "")
        if not restart:
            assert_both_end(link, config, tmp_path, cloud, thread)
    if restart:
        assert not errors
        with link.cloud_at(config, tmp_path / "cloud", errors=errors) as (cloud, thread):
            assert_both_end(link, config, tmp_path, cloud, thread)
    assert [error.key for error in errors] == ["uplink.chain"]
    assert not (tmp_path / "cloud" / "cloud.json").exists()
    assert Spool(tmp_path / "edge" / "spool").read(0) == first  # nothing is forgotten


def assert_both_end(link, config, root, cloud, thread) -> None:
    again = link.edge_at(config, root / "edge")
    with pytest.raises(UplinkError, match="not those spooled here"):
        again.run(link.uplink_of(again, cloud.server.port))
    thread.join(20)
    assert not thread.is_alive()


def test_of_two_edges_with_one_number_the_second_is_refused(tmp_path, link):
    config = link.make_config(0, 1, 0)
    link.spooled(config, tmp_path / "second")  # the same seed: the very same messages
    with link.cloud_at(config, tmp_path / "cloud") as (cloud, thread):
        job = link.edge_at(config, tmp_path / "edge")
        uplink = link.uplink_of(job, cloud.server.port)
        refuse_second(link, config, tmp_path, cloud, uplink)  # the first is on the line, and sent nothing yet
        job.run(uplink)
        thread.join(60)
    assert job.spool.waiting == 0
    with link.cloud_at(config, tmp_path / "cloud", linger=0.5) as (cloud, _):
        refuse_second(link, config, tmp_path, cloud, None)
    assert Spool(tmp_path / "second" / "spool").acknowledged == 0


def refuse_second(link, config, root, cloud, first) -> None:
    if first is not None:
        with first._changed:
            assert first._changed.wait_for(lambda: first._connected, 20)
    second = link.edge_at(config, root / "second")
    with pytest.raises(UplinkError, match="another folder sends as this edge already"):
        second.run(link.uplink_of(second, cloud.server.port))


def test_a_copied_folder_that_went_another_way_ends_in_an_error(tmp_path, link):
    """Under system noise a copy draws other releases under the same numbers."""
    config, errors = link.make_config(0, 2, 0, privacy={"noise_source": "system"}), []
    link.edge_at(config, tmp_path / "edge")
    shutil.copytree(tmp_path / "edge", tmp_path / "copy")
    link.spooled(config, tmp_path / "copy")
    link.run_both(config, tmp_path)
    with link.cloud_at(config, tmp_path / "cloud", errors=errors) as (cloud, thread):
        copy = link.edge_at(config, tmp_path / "copy")
        with pytest.raises(UplinkError, match="not those spooled here"):
            copy.run(link.uplink_of(copy, cloud.server.port))
        thread.join(20)
    assert [error.key for error in errors] == ["uplink.chain"]


def test_a_cloud_that_lost_acknowledged_messages_is_refused_by_its_edge(tmp_path, link):
    config = link.make_config(0, 1, 0)
    link.run_both(config, tmp_path)
    shutil.rmtree(tmp_path / "cloud")
    with link.cloud_at(config, tmp_path / "cloud", linger=0.5) as (cloud, _):
        job = link.edge_at(config, tmp_path / "edge")
        with pytest.raises(UplinkError, match=r"taken.*has only 0 messages"):
            job.run(link.uplink_of(job, cloud.server.port))


def test_join_compares_content_not_counts(tmp_path, link):
    config = link.make_config(0, 1, 0)
    link.run_both(config, tmp_path)
    folder = tmp_path / "cloud" / "journal"
    journal = Journal(folder)
    messages = [journal.read(number) for number in range(len(journal))]
    shutil.copytree(tmp_path / "cloud", tmp_path / "good")
    shutil.rmtree(folder)
    other = Journal(folder)
    for number, data in enumerate([forged(messages[0]), *messages[1:]]):
        other.append(0, number, data, decode(data))
    other.close()
    with pytest.raises(GuaranteeError, match="message 0 is not the one that the edge spooled"):
        join(tmp_path / "edge", tmp_path / "cloud", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    join(tmp_path / "edge", tmp_path / "good", tmp_path / "out")


def test_join_reads_a_torn_journal_and_changes_nothing(tmp_path, link):
    config = link.make_config(0, 1, 0)
    link.run_both(config, tmp_path)
    path = tmp_path / "cloud" / "journal" / "000000.log"
    torn = path.read_bytes()[:-7]
    path.write_bytes(torn)
    with pytest.raises(GuaranteeError):
        join(tmp_path / "edge", tmp_path / "cloud", tmp_path / "out")
    assert path.read_bytes() == torn
    bad = bytearray(torn)
    bad[40] ^= 1
    path.write_bytes(bad)
    with pytest.raises(UplinkError, match="is damaged"):
        join(tmp_path / "edge", tmp_path / "cloud", tmp_path / "out")
    assert path.read_bytes() == bad
    with pytest.raises(UplinkError, match="is damaged"), link.cloud_at(config, tmp_path / "cloud"):
        pass
    assert path.read_bytes() == bad
