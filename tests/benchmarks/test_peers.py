"""The comparison with peers: unequal work is refused, a slow peer is seen. No peer need be installed."""

from __future__ import annotations

import csv
import importlib
import io
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

Load = Callable[[str], ModuleType]


@pytest.fixture
def folder(repository) -> Path:
    return repository / "benchmarks" / "peers"


@pytest.fixture
def load(folder, monkeypatch) -> Iterator[Load]:
    """Imports a script of the folder; afterwards none of them is there."""
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def harness(load) -> ModuleType:
    return load("harness")


@pytest.fixture
def clock(harness, monkeypatch) -> Callable[[float], None]:
    """Processor time that passes when told to; on the wall twice as much does."""
    now = [0.0]

    def passes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(harness.time, "process_time", lambda: now[0])
    monkeypatch.setattr(harness.time, "perf_counter", lambda: 2 * now[0])
    return passes


@pytest.fixture
def stub(harness, clock):
    """A contender that takes so long to start, to work and to report, and writes down that it worked."""

    def make(name, seconds, *, started=0.0, reported=0.0, log=None, **said):
        outcome = replace(harness.Outcome("net", "data", 0.5, 8), **said)

        def start():
            clock(started)

            def work():
                clock(seconds)
                if log is not None:
                    log.append(name)

                def report():
                    clock(reported)
                    return outcome

                return report

            return work

        return harness.Contender(name, start)

    return make


def compared(harness, ours, peer, **options):
    chosen = {"pairs": 3, "rule": harness.Rule(within=0.1), "warm": False} | options
    return harness.compare("it", ours, peer, versions="peer 1", unit="seconds", **chosen)


def test_a_peer_of_known_slowness_is_seen(harness, stub):
    row = compared(harness, stub("ours", 2.0), stub("peer", 6.0), wanted=3.0)
    assert (row.ratio, row.low, row.high, row.wall) == (3.0, 3.0, 3.0, 3.0)
    assert (row.ours, row.theirs) == (0.25, 0.75)
    assert row.verdict == "reached"


@pytest.mark.parametrize(("seconds", "verdict"), [(3.0, "ours slower"), (1.0, "ours faster"), (2.0, "even")])
def test_who_is_slower_is_said(harness, stub, seconds, verdict):
    assert compared(harness, stub("ours", seconds), stub("peer", 2.0)).verdict == verdict


def test_short_of_what_is_wanted_is_said(harness, stub):
    row = compared(harness, stub("ours", 2.0), stub("peer", 5.9), wanted=3.0)
    assert row.verdict == "NOT reached: 3 wanted"


def test_neither_making_ready_nor_reporting_is_timed(harness, stub):
    slow = stub("peer", 1.0, started=100.0, reported=100.0)
    assert compared(harness, stub("ours", 1.0), slow).ratio == 1.0


def test_pairs_alternate(harness, stub):
    log: list[str] = []
    compared(harness, stub("ours", 1.0, log=log), stub("peer", 1.0, log=log))
    assert log == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_a_busy_loop_is_timed_by_the_real_clock(harness):
    def contender(name, rounds):
        def start():
            def work():
                sum(range(rounds))
                return lambda: harness.Outcome("net", "data", 0.5, 1)

            return work

        return harness.Contender(name, start)

    row = compared(harness, contender("ours", 100_000), contender("peer", 3_000_000), pairs=5)
    assert row.ratio > 3


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ({"network": "another"}, "another network"),
        ({"data": "another"}, "another data"),
        ({"work": 9}, "another work"),
        ({"loss": 0.6}, "ended at 0.6"),
        ({"loss": float("nan")}, "loss of peer is nan"),
        ({"loss": float("inf")}, "loss of peer is inf"),
    ],
)
def test_what_is_not_the_same_is_refused(harness, stub, said, rule):
    with pytest.raises(harness.UnequalError, match=rule):
        compared(harness, stub("ours", 1.0), stub("peer", 1.0, **said))
    with pytest.raises(harness.UnequalError):
        compared(harness, stub("ours", 1.0, **said), stub("peer", 1.0))


def test_a_loss_that_was_not_reached_is_refused(harness, stub):
    reached = harness.Rule(reached=0.5)
    compared(harness, stub("ours", 1.0), stub("peer", 1.0, loss=0.1), rule=reached)
    with pytest.raises(harness.UnequalError, match=r"ours ended at 0\.51, above 0\.5"):
        compared(harness, stub("ours", 1.0, loss=0.51), stub("peer", 1.0), rule=reached)
    with pytest.raises(harness.UnequalError, match=r"peer ended at 0\.51, above 0\.5"):
        compared(harness, stub("ours", 1.0), stub("peer", 1.0, loss=0.51), rule=reached)


def test_a_rule_must_say_what_the_same_loss_is(harness, stub):
    with pytest.raises(harness.UnequalError, match="must say"):
        compared(harness, stub("ours", 1.0), stub("peer", 1.0), rule=harness.Rule())


def test_the_fewest_steps_that_do(harness):
    ladder = (10, 20, 30, 40, 50)
    assert [harness.smallest(ladder, need.__le__) for need in (1, 20, 31, 50)] == [10, 20, 40, 50]
    with pytest.raises(harness.MissingError, match="50 steps"):
        harness.smallest(ladder, lambda n: False)


def share(said, truth):
    return float((said == truth).mean())


def strength(harness, ours, theirs, truth):
    return harness.strength(
        "it",
        "peer",
        versions="peer 1",
        score="share",
        of=share,
        ours=ours,
        theirs=theirs,
        truth=truth,
        seconds=(1.0, 2.0),
    )


def test_strengths_on_the_same_victims(harness):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 400)
    good = np.where(rng.random(400) < 0.9, truth, 1 - truth)
    fair = np.where(rng.random(400) < 0.7, truth, 1 - truth)
    row = strength(harness, good, fair, truth)
    assert row.ours[0] == share(good, truth)
    assert row.gap[0] == pytest.approx(row.ours[0] - row.theirs[0])
    assert row.gap[1] < row.gap[0] < row.gap[2]
    # Two independent shares of 400: sqrt(0.09 + 0.21) / 20, times twice 1.96.
    assert row.gap[2] - row.gap[1] == pytest.approx(2 * 1.96 * np.sqrt(0.3) / 20, rel=0.15)
    assert row.verdict == "ours stronger"
    assert strength(harness, fair, good, truth).verdict == "ours WEAKER"
    assert strength(harness, good, good, truth).gap == (0.0, 0.0, 0.0)
    assert strength(harness, good, good, truth).verdict == "no difference seen"
    with pytest.raises(harness.UnequalError, match="399 victims"):
        strength(harness, good, fair[:-1], truth)


def test_the_page_and_the_table(load, harness, stub):
    pages = load("pages")
    row = compared(harness, stub("ours", 2.0), stub("peer", 5.0), wanted=3.0)
    one = strength(harness, np.array([0, 1]), np.array([0, 1]), np.array([0, 1]))
    found = pages.Found(pages.machine(1), [row], [one], ["somebody: it is not installed"])
    assert pages.Found.read(json.loads(json.dumps(asdict(found)))) == found
    page = pages.page({"it": found})
    assert "| it | peer | 2.50 (2.50 to 2.50) |" in page
    assert "NOT reached: 3 wanted" in page
    assert "- somebody: it is not installed" in page
    assert platform.node() not in page
    read = list(csv.DictReader(io.StringIO(pages.table({"it": found}))))
    assert [line["kind"] for line in read] == ["time", "strength"]
    assert float(read[0]["value"]) == 2.5


def test_pins_are_names_and_versions_of_all_that_is_installed(load, folder):
    install = load("install")
    lines = (folder / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {plain(line.partition("==")[0]) for line in lines}
    assert {plain(name) for name in (*install.PEERS, *install.NEEDED)} <= pinned


def test_an_unknown_comparison_is_refused(load, monkeypatch, capsys):
    run = load("run")
    monkeypatch.setattr(sys, "argv", ["run.py", "inversions"])
    with pytest.raises(SystemExit) as end:
        run.main()
    assert end.value.code == 2
    assert "no comparison inversions" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("art") is not None, reason="the peer is installed here")
def test_a_peer_that_is_not_installed_is_named(load, monkeypatch, tmp_path, capsys):
    run = load("run")
    monkeypatch.setattr(sys, "argv", ["run.py", "attribute", "--out", str(tmp_path)])
    monkeypatch.setattr(run.torch, "set_num_threads", lambda count: None)
    assert run.main() == 0
    assert "not compared: attribute: art is not installed (make peers)" in capsys.readouterr().out
    assert "art is not installed" in (tmp_path / "peers.md").read_text()


def test_a_later_run_of_one_comparison_keeps_the_others(load, harness, stub, tmp_path):
    run, pages = load("run"), load("pages")
    for name, seconds in (("lira", 2.0), ("decoder", 3.0), ("lira", 4.0)):
        row = replace(compared(harness, stub("ours", 1.0), stub("peer", seconds)), what=name)
        run.write(tmp_path, name, pages.Found(pages.machine(1), [row]))
    read = list(csv.DictReader(io.StringIO((tmp_path / "peers.csv").read_text())))
    assert [(line["what"], float(line["value"])) for line in read] == [("decoder", 3.0), ("lira", 4.0)]


def test_our_inversion_as_the_comparison_runs_it(load, harness):
    scenes, inversion = load("scene"), load("inversion")
    scene = scenes.inversion_scene("small_cnn", "stage1", size=16, victims=2, auxiliary=8)
    assert scene.loss(scene.truth) < 1e-8
    assert scene.loss(scene.start.expand_as(scene.truth)) > 0.05
    ours = inversion.ours(scene, optimizer="lbfgs")
    short, longer = (inversion.contender("ours", scene, ours, steps) for steps in (2, 12))
    row = compared(harness, short, longer, pairs=1, rule=harness.Rule(reached=10.0))
    assert "2 steps" in row.note
    other = scenes.inversion_scene("small_cnn", "stage1", size=16, victims=2, auxiliary=9)
    stranger = inversion.contender("peer", other, inversion.ours(other, optimizer="adam"), 2)
    with pytest.raises(harness.UnequalError, match="another data"):
        compared(harness, short, stranger, pairs=1, rule=harness.Rule(reached=10.0))


@pytest.mark.filterwarnings("ignore:.*Secure RNG:UserWarning", "ignore:.*Full backward hook:UserWarning")
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_opacus_own_loop_ends_where_ours_does(load, harness, monkeypatch, mode):
    dp_sgd = load("dp_sgd")
    for name, value in {"SIZE": 16, "BATCH": 8, "RECORDS": 24, "STEPS": 3}.items():
        monkeypatch.setattr(dp_sgd, name, value)
    data, config = dp_sgd.training_data(), dp_sgd.config_for("small_cnn", "stage2", mode)
    ours, theirs = dp_sgd.ours(config, data), dp_sgd.opacus_loop(config, data, mode)
    rule = harness.Rule(within=dp_sgd.WITHIN)
    row = compared(harness, ours, theirs, pairs=1, rule=rule)
    assert row.ratio > 0
    monkeypatch.setattr(dp_sgd, "LR", 1.0)  # the peer's alone: ours has its configuration
    with pytest.raises(harness.UnequalError, match="ended at"):
        compared(harness, ours, dp_sgd.opacus_loop(config, data, mode), pairs=1, rule=rule)


def test_shadow_outputs_are_the_same_for_all(load):
    tables, lira = load("shadow_tables"), load("lira")
    case = tables.drawn_case(80, 8)
    assert (case.inside.sum(axis=0) == 4).all()
    assert np.abs(case.shadows[case.inside].mean() - case.shadows[~case.inside].mean() - 0.5) < 0.4
    said = case.predictions(case.phi)
    true = said[np.arange(80), case.labels]
    assert np.log(true / (1 - true)) == pytest.approx(case.phi, rel=1e-3, abs=1e-3)
    mine = lira.ours(offline=False)(case)
    assert mine.shape == (80,)
    outcome = lira.contender("ours", case, lambda case: mine).start()()()
    assert 0 < outcome.loss < 0.6


def test_the_decoder_that_both_train_is_the_same_one(load):
    decoder, scenes = load("decoder"), load("scene")
    scene = scenes.inversion_scene("small_cnn", "stage1", size=16, victims=2, auxiliary=40)
    records = decoder.Records(scene.view)
    network = decoder.ImagesAlone(decoder._fresh(scene.view, records))
    before = records.loss(network)
    network.decoder.fit_start(records.maps[records.split.train], records.images[records.split.train])
    assert records.loss(network) < before
    assert scenes.shapes_of(network.decoder) == scenes.shapes_of(decoder._fresh(scene.view, records))
    assert scenes.shapes_of(network.decoder) != scenes.shapes_of(network)


def test_our_shadow_models_as_the_comparison_trains_them(load, monkeypatch):
    shadows = load("shadows")
    for name, value in {"SIZE": 16, "POOL": 40, "MODELS": 2, "EPOCHS": 2, "BATCH": 10}.items():
        monkeypatch.setattr(shadows, name, value)
    pool = shadows.Pool.drawn()
    outcome = shadows.ours(pool).start()()()
    assert (outcome.data, outcome.work) == (pool.data, 2)
    assert 0 < outcome.loss < 2
    labels = torch.eye(4)[torch.from_numpy(pool.task + 2 * pool.secret)]
    logits = torch.zeros(len(labels), 6)
    assert float(shadows.Three()(logits, labels)) == pytest.approx(3 * np.log(2))
    right = torch.cat([torch.eye(2)[torch.from_numpy(one)] for one in (pool.task, pool.secret, pool.task)], 1)
    assert float(shadows.Three()(100 * right, labels)) == pytest.approx(0, abs=1e-6)
