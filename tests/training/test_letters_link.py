"""Letters over a real connection: the run of one process, every answer once, one alphabet on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from privhier.config.shared import load_shared
from privhier.distributed.join import join
from privhier.errors import UplinkError
from privhier.privacy.agreement import check_agreement
from privhier.privacy.ledger import Ledger
from privhier.training.cloud_folder import CloudFolder
from privhier.training.deploy import load_edge
from privhier.training.folder import RunFolder
from privhier.training.trained import load_trained
from privhier.uplink.codec import decode, encode
from privhier.uplink.frames import encode_frame
from privhier.uplink.journal import Journal

K = 6


def letters_config(link, epochs, *, source="seeded", release=None, **bottleneck):
    return link.make_config(
        *epochs,
        model={"bottleneck": {"kind": "letters", "size": 1, "letters": K, **bottleneck}},
        release=release or {"mechanism": "randomized_response", "target_epsilon": 6.0, "sigma": None},
        privacy={"noise_source": source},
    )


def same(first, second) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def answers(folder) -> list[np.ndarray]:
    journal = Journal(folder / "journal")
    return [decode(journal.read(number)).payload for number in range(len(journal.places))]


@pytest.mark.parametrize(
    ("epochs", "bottleneck"),
    [
        ((1, 0, 2), {}),
        ((1, 1, 2), {"size": 2, "groups": 3}),
        ((0, 2, 0), {"fit": "learned"}),
    ],
)
def test_two_processes_end_in_the_run_of_one(tmp_path, link, epochs, bottleneck):
    config = letters_config(link, epochs, **bottleneck)
    one = link.in_process(config, tmp_path / "one")
    link.run_both(config, tmp_path)
    assert same(tmp_path / "one" / "tail.safetensors", tmp_path / "cloud" / "tail.safetensors")
    assert same(tmp_path / "one" / "edge.safetensors", tmp_path / "edge" / "edge.safetensors")
    ledgers = [Ledger.load(RunFolder(tmp_path / name).ledger).events for name in ("one", "edge")]
    assert sorted(map(repr, ledgers[0])) == sorted(map(repr, ledgers[1]))
    assert CloudFolder(tmp_path / "cloud").finished()["uplink"] == one.uplink
    shared = load_shared(tmp_path / "cloud" / "shared.yaml").model.bottleneck
    assert (shared.kind, shared.letters, shared.groups) == ("letters", K, bottleneck.get("groups", 1))
    session = join(tmp_path / "edge", tmp_path / "cloud", tmp_path / "joined")
    joined = load_trained(config, session.prepared.data, session.folder)
    assert np.array_equal(joined.test_releases, one.test_releases)
    facts = [
        RunFolder(tmp_path / name).sealed.read_json(RunFolder(tmp_path / name).training)["code"]
        for name in ("one", "joined")
    ]
    assert facts[0] == facts[1]


@pytest.mark.parametrize(("source", "stop"), [("seeded", 2), ("system", 2), ("system", 7)])
def test_a_killed_edge_never_answers_again(tmp_path, link, source, stop):
    """Stopped after any message: the first answers are what arrives, under one charge."""
    config = letters_config(link, (1, 1, 1), source=source, groups=2)
    job = link.edge_at(config, tmp_path / "edge")
    append, spooled = job.spool.append, []

    def dying(message):
        entry = append(message)
        spooled.append(message.data)
        if len(spooled) == stop:
            raise KeyboardInterrupt
        return entry

    job.spool.append = dying
    uplink = link.uplink_of(job, 9)  # nobody listens there
    with pytest.raises(KeyboardInterrupt):
        job.run(uplink)
    uplink.abandon()
    job = link.run_both(config, tmp_path)
    journal = Journal(tmp_path / "cloud" / "journal")
    assert [journal.read(number) for number in range(stop)] == spooled
    keys = [place.key for place in journal.places]
    assert len(keys) == len(set(keys))
    events = Ledger.load(RunFolder(tmp_path / "edge").ledger).events
    assert len(events) == len({(event.split, event.phase, event.epoch) for event in events}) == 6
    check_agreement(job.side.ledger, job.spool.releases())
    assert job.side.ledger.accounts()["train"].epsilon <= 6.0


@pytest.mark.parametrize("stop", [("joint", 0), ("cloud", 0)])
def test_a_killed_cloud_ends_in_the_tail_of_one_that_was_not(tmp_path, link, stop):
    config = letters_config(link, (1, 1, 2))
    link.in_process(config, tmp_path / "one")
    job = link.edge_at(config, tmp_path / "edge")
    errors: list[Exception] = []
    with link.cloud_at(config, tmp_path / "cloud", errors=errors) as (cloud, thread):
        (half,) = cloud.jobs
        close = half._close

        def dying(trainer, phase, epoch, loss, **more):
            close(trainer, phase, epoch, loss, **more)
            if (phase, epoch) == stop:
                raise RuntimeError("killed")

        half._close = dying
        uplink = link.uplink_of(job, cloud.server.port)
        uplink.close = uplink.abandon
        job.run(uplink)
        thread.join(60)
    assert [str(error) for error in errors] == ["killed"]
    link.run_both(config, tmp_path)
    assert same(tmp_path / "one" / "tail.safetensors", tmp_path / "cloud" / "tail.safetensors")


@pytest.mark.parametrize("other", [{"letters": K + 1}, {"groups": 2}, {"fit": "learned"}])
def test_a_cloud_of_another_alphabet_refuses_the_greeting(tmp_path, link, other):
    config = letters_config(link, (1, 0, 1))
    with link.cloud_at(config, tmp_path / "cloud") as (cloud, _):
        job = link.edge_at(letters_config(link, (1, 0, 1), **other), tmp_path / "edge")
        with pytest.raises(UplinkError, match="run_id") as caught:
            job.run(link.uplink_of(job, cloud.server.port))
        assert cloud.jobs[0].config.run_id in str(caught.value)
        assert len(cloud.jobs[0].inbox.journal) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: replace(m, letters=K + 1), f"letters: {K + 1} - this run has {K}"),
        (
            lambda m: replace(m, letters=K - 1, payload=m.payload % (K - 1)),
            f"letters: {K - 1} - this run has {K}",
        ),
        (lambda m: replace(m, payload=np.repeat(m.payload, 2, axis=1)), "the greeting said (1,)"),
        (lambda m: replace(m, wire="float32", letters=None, payload=m.payload.astype(np.float32)), "wire"),
    ],
    ids=["a larger alphabet", "a smaller one", "more letters", "values"],
)
def test_a_message_of_another_alphabet_is_refused(tmp_path, link, change, said):
    config = letters_config(link, (1, 0, 1))
    job = link.spooled(config, tmp_path / "edge")
    forged = encode(change(decode(job.spool.read(0))))
    with link.cloud_at(config, tmp_path / "cloud", linger=0.5) as (cloud, _):
        _, text = link.knock(cloud.server.port, job.hello.encode(), encode_frame(0, forged))
        assert said in text, text
        assert len(cloud.jobs[0].inbox.journal) == 0


def test_a_greeting_of_another_shape_is_refused(tmp_path, link):
    config = letters_config(link, (1, 0, 1))
    job = link.edge_at(config, tmp_path / "edge")
    for change, field in (({"shape": (2,)}, "shape"), ({"wire": "float32"}, "wire")):
        with link.cloud_at(config, tmp_path / "cloud", linger=0.5) as (cloud, _):
            acks, text = link.knock(cloud.server.port, replace(job.hello, **change).encode())
        assert acks == []
        assert field in text


def test_an_edge_answers_alone_while_there_is_no_cloud(tmp_path, link):
    config = letters_config(link, (1, 1, 0), groups=2)
    job = link.spooled(config, tmp_path / "edge")
    assert job.spool.waiting == len(job.spool.entries) > 0
    released = load_edge(tmp_path / "edge")(job.data.pixels(job.data.splits.test[:8]))
    assert released.letters.shape == (8, 2)
    assert len({p.shape[1:] for p in (decode(job.spool.read(n)).payload for n in range(3))}) == 1
