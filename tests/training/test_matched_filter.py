"""Shaped noise end to end: a run of `gain` on maps in one process, in two, loaded again, and its epsilon."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privhier.config.shared import load_shared
from privhier.datasets.load import load_dataset
from privhier.distributed.join import join
from privhier.errors import CheckpointError
from privhier.models.matched_filter import MatchedFilter
from privhier.privacy.ledger import Ledger
from privhier.seeding import torch_stream
from privhier.training.deploy import load_tail
from privhier.training.folder import RunFolder
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import load_trained

MAP = {"cut": "stage1", "bottleneck": {"kind": "channels", "size": 3}}


def config_of(link, defense="gain", **release):
    chosen = {"name": defense}
    return link.make_config(1, 1, 1, model=MAP, defense=chosen, **({"release": release} if release else {}))


def filter_of(tail) -> MatchedFilter:
    (found,) = [module for module in tail.modules() if isinstance(module, MatchedFilter)]
    return found


def test_two_processes_end_in_the_run_of_one_and_both_tails_load(tmp_path, link):
    config = config_of(link)
    one = link.in_process(config, tmp_path / "one")
    link.run_both(config, tmp_path)
    assert load_shared(tmp_path / "cloud" / "shared.yaml").matched_filter
    session = join(tmp_path / "edge", tmp_path / "cloud", tmp_path / "joined")
    joined = load_trained(config, session.prepared.data, session.folder)
    assert np.array_equal(joined.test_releases, one.test_releases)
    release = torch.from_numpy(np.array(one.test_releases[:4, -1]))
    for tail in (joined.tail, *(load_tail(tmp_path / name) for name in ("one", "cloud", "joined"))):
        assert link.equal(tail, one.tail)
        assert torch.equal(tail(release)[0], one.tail(release)[0])
        assert not tail.training
    trained = filter_of(one.tail)
    assert all(
        not torch.equal(old, new)
        for old, new in zip(
            MatchedFilter(one.edge.release_shape).parameters(), trained.parameters(), strict=True
        )
    )
    assert float((trained(release) - release).detach().abs().max()) > 1e-4


def test_a_tail_that_is_not_there_or_was_altered_is_not_loaded(tmp_path, link):
    with pytest.raises(CheckpointError, match="holds no finished training"):
        load_tail(tmp_path / "nowhere")
    link.in_process(config_of(link), tmp_path / "one")
    weights = tmp_path / "one" / "tail.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="tail"):
        load_tail(tmp_path / "one")


def test_gains_cost_no_epsilon(tmp_path, link):
    """The same noise is solved for, the same releases are charged, the same guarantees are made."""
    found = []
    for name in ("none", "gain"):
        config = config_of(link, name, mechanism="gaussian", target_epsilon=6.0, sigma=None)
        data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
        mechanism = build_mechanism(config, len(data.splits.train))
        link.in_process(config, tmp_path / name)
        ledger = Ledger.load(RunFolder(tmp_path / name).ledger)
        found.append((mechanism.sigma, list(map(repr, ledger.events)), ledger.guarantees(delta=1e-5)))
    assert found[0] == found[1]
    assert min(row.epsilon for row in found[0][2] if row.epsilon is not None) <= 6.0


def test_a_tail_reads_maps_of_any_batch(link, tmp_path):
    trained = link.in_process(config_of(link), tmp_path / "one")
    x = torch.randn(5, *trained.edge.release_shape, generator=torch_stream(0, "maps"))
    whole = trained.tail(x)[0]
    assert torch.allclose(torch.cat([trained.tail(x[i : i + 1])[0] for i in range(5)]), whole, atol=1e-5)
