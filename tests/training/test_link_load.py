"""One cloud, many edges: everything arrives once, and the load test's own arithmetic."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from privhier.uplink.codec import decode, encode
from privhier.uplink.journal import Journal

NAMES = ("load_edges", "load_cell", "load")


@pytest.fixture(scope="module")
def study(repository):
    """The load test's scripts, imported by path and forgotten afterwards."""
    folder = str(repository / "experiments" / "hierarchical_training")
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(folder)
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.mark.slow
def test_eight_edges_of_one_run_and_two_runs_at_once(repository, tmp_path):
    script = repository / "experiments" / "hierarchical_training" / "load.py"
    options = ["--cells", "8x1", "2x2", "--payloads", "narrow", "--sync", "on"]
    options += ["--messages", "48", "--joint", "1", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
    done = subprocess.run(
        [sys.executable, str(script), *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    rows = json.loads((tmp_path / "load.json").read_text())
    assert [(row["edges"], row["runs"]) for row in rows] == [(8, 1), (2, 2)]
    # Beside joint training, an edge sends its training records once (256 a message), and validation and
    # test records twice each.
    assert [row["messages"] for row in rows] == [48 + 8 * (1 + 4), 48 + 4 * (2 + 4)]
    for row in rows:
        places = row["edges"] * row["runs"]
        assert row["wrong"] == []
        assert row["syncs"] > 0
        assert 0 < row["ack_ms"] <= row["ack_p95_ms"]
        assert math.isnan(row["jain"]) or 1 / places <= row["jain"] <= 1


def test_jains_index_tells_equal_shares_from_one_taker(study):
    assert study.load_cell.jain(np.full(32, 7.0)) == pytest.approx(1)
    assert study.load_cell.jain(np.eye(32)[3]) == pytest.approx(1 / 32)
    assert study.load_cell.jain(np.array([1.0, 3.0])) == pytest.approx(16 / 20)


def test_rates_are_those_of_the_time_in_which_all_were_sending(study):
    def edge(*acknowledged: float) -> np.ndarray:
        return np.array([(0.0, at, 32.0, 100.0, 1.0) for at in acknowledged])

    early, late = edge(1, 2, 3, 4), edge(2, 4, 8)
    assert study.load_cell.window([early, late]) == (2, 4)
    assert study.load_cell.rates_in([early, late], 2, 4).tolist() == [32, 16]
    assert np.isnan(study.load_cell.rates_in([early, late], 4, 4)).all()


def test_an_edge_sends_every_record_of_its_own_as_often_as_it_is_released(study, tmp_path):
    plan = study.load_edges.Plan(3, 1, messages=24, joint=2)
    owned = []
    for number in range(3):
        edge = study.load_edges.SimulatedEdge(plan, 0, number, tmp_path)
        messages = [decode(message.data) for message in edge.messages]
        assert len({message.key for message in messages}) == len(messages)
        assert [m.phase for m in messages if m.split == "train"] == ["joint"] * 8 + ["cloud"]
        for split, count in plan.records().items():
            records = np.concatenate([m.records for m in messages if m.split == split])
            assert len(records) == 3 * count
            assert set(np.unique(records, return_counts=True)[1]) == {3}
        owned.append({int(r) for m in messages if m.split == "train" for r in m.records})
    assert not owned[0] & owned[1]
    assert not owned[1] & owned[2]


@pytest.mark.parametrize("fault", [None, "lost", "another"])
def test_sabotage_what_did_not_arrive_is_found(study, tmp_path, fault):
    plan = study.load_edges.Plan(2, 1, messages=8, joint=1, training=False)
    journal = Journal(tmp_path / "cloud0" / "journal", sync=False)
    for number in range(2):
        edge = study.load_edges.SimulatedEdge(plan, 0, number, tmp_path)
        for message in edge.messages:
            edge.spool.append(message)
        sent = [message.data for message in edge.messages]
        if fault == "lost" and number:
            sent.pop()
        if fault == "another" and number:  # the same place in the run, other labels
            message = decode(sent[0])
            message.task_labels[:] = 1 - message.task_labels
            sent[0] = encode(message)
        for sequence, data in enumerate(sent):
            journal.append(number, sequence, data, decode(data))
    journal.close()
    found = study.load_cell.check(plan, tmp_path)
    assert bool(found) == (fault is not None), found
    if fault is not None:
        assert any("edge 1" in text for text in found)
        assert not any("edge 0" in text for text in found)
