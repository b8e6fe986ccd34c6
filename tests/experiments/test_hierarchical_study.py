"""The pure parts of the study of hierarchical training, and its baselines over loopback at toy size."""

from __future__ import annotations

import importlib
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from privhier.config import parse_config
from privhier.datasets.load import load_dataset
from privhier.models.inputs import augment, normalize
from privhier.training.cloud import mean_task_loss
from privhier.training.optimize import build_optimizer
from privhier.training.prepare import prepare
from privhier.training.trained import build_model

NAMES = (
    "accuracy",
    "baselines",
    "byte_stream",
    "figure",
    "measure",
    "pictures",
    "regimes",
    "results",
    "runner",
    "shaped_link",
    "stages",
    "table",
    "token_relay",
    "whole_network",
)


@pytest.fixture(scope="module")
def study(repository):
    """Its scripts, imported by path and forgotten afterwards."""
    folder = str(repository / "experiments" / "hierarchical_training")
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(folder)
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def stages(study):
    return study.regimes.Stages(
        full=10.0,
        edge=3.0,
        cloud=8.0,
        release=1.0,
        split_edge=2.5,
        split_cloud=8.5,
        encode={"jpeg": 0.2, "jpeg50": 0.2, "webp50": 12.0},
        decode={"jpeg": 0.1, "jpeg50": 0.1, "webp50": 0.3},
    )


@pytest.fixture(scope="module")
def config():
    return parse_config(
        {
            "name": "toy",
            "dataset": {
                "name": "synthetic",
                "image_size": 32,
                "task": ["smiling"],
                "sensitive": ["male"],
                "options": {"images": 120, "identities": 24},
            },
            "model": {"backbone": "small_cnn", "bottleneck": {"kind": "channels", "size": 4}},
            "schedule": {"joint_epochs": 2},
            "training": {
                "batch_size": 16,
                "edge": {"schedule": "constant"},
                "cloud": {"schedule": "constant"},
            },
            "runtime": {"device": "cpu", "threads": 1},
        }
    )


@pytest.fixture(scope="module")
def data(config):
    return prepare(config, load_dataset(config.dataset, seed=0)).data


@pytest.fixture(scope="module")
def facts(study, data):
    return study.whole_network.Facts(32, dict(data.task_classes), len(data.splits.train))


# The model


def test_what_is_pipelined_takes_its_longest_part_and_what_waits_takes_the_sum(study, stages):
    ms = study.regimes.phase_ms
    # 1,000 bytes at 1 Mbit/s: 8 ms.
    assert ms("images_raw_anew", stages, 1000, 0, 1.0) == {"epoch": 10.0}
    assert ms("images_raw_anew", stages, 2000, 0, 1.0) == {"epoch": 16.0}
    assert ms("images_jpeg_anew", stages, 1000, 0, 1.0)["epoch"] == pytest.approx(10.1)
    assert ms("images_webp50_anew", stages, 1000, 0, 1.0)["epoch"] == 12.0  # waits for the encoder
    assert ms("images_raw_once", stages, 2000, 0, 1.0) == {"first": 16.0, "cached": 10.0}
    assert ms("joint", stages, 500, 0, 1.0) == {"epoch": 8.0}
    assert ms("joint_wide", stages, 2000, 0, 1.0) == {"epoch": 16.0}
    assert ms("split", stages, 1000, 500, 1.0) == {"epoch": 2.5 + 8.0 + 8.5 + 4.0}
    assert ms("edge_only", stages, 0, 0, 1.0) == {"epoch": 10.0}
    release = ms("release_once", stages, 2000, 0, 1.0)
    assert release == {"pretrain": 3.0, "release": 16.0, "cloud": 8.0}


def test_a_faster_cloud_speeds_up_the_cloud_only(study, stages):
    ms = study.regimes.phase_ms
    assert ms("joint", stages, 100, 0, 1.0, 4.0) == {"epoch": 3.0}
    assert ms("images_raw_anew", stages, 100, 0, 1.0, 4.0) == {"epoch": 2.5}
    assert ms("edge_only", stages, 0, 0, 1.0, 4.0) == {"epoch": 10.0}
    assert ms("release_once", stages, 100, 0, 1.0, 10.0) == {"pretrain": 3.0, "release": 1.0, "cloud": 0.8}


def test_an_unknown_regime_is_refused(study, stages):
    with pytest.raises(ValueError, match="telepathy"):
        study.regimes.phase_ms("telepathy", stages, 1, 1, 1.0)


def test_run_time_counts_the_epochs_of_every_phase(study):
    plan = study.regimes.Plan(images=1000, epochs=10, pretrain=6, cloud=4)
    seconds = study.regimes.run_seconds
    assert seconds("joint", {"epoch": 8.0}, plan) == 80.0
    assert seconds("images_raw_once", {"first": 16.0, "cached": 10.0}, plan) == 16 + 9 * 10
    assert seconds("release_once", {"pretrain": 3.0, "release": 16.0, "cloud": 8.0}, plan) == 18 + 16 + 24


def test_crossings_are_found_where_they_are(study):
    crossings = study.regimes.crossings
    assert crossings(lambda r: 10 / r, lambda r: 2.0, 0.1, 100) == pytest.approx([5.0])
    there_and_back = crossings(lambda r: abs(r - 10), lambda r: 4.0, 0.1, 100)
    assert there_and_back == pytest.approx([6.0, 14.0], rel=1e-6)
    assert crossings(lambda r: 1.0, lambda r: 2.0, 0.1, 100) == []


def test_curves_that_meet_and_stay_together_do_not_cross(study):
    assert study.regimes.crossings(lambda r: max(10 / r, 2.0), lambda r: 2.0, 0.1, 100) == []


def test_the_highest_rate_that_still_saves_enough(study):
    rate = study.regimes.rate_for_reduction
    assert rate(lambda r: 1.0, lambda r: 10 / r, 0.8, 0.1, 100) == pytest.approx(2.0)
    assert rate(lambda r: 1.0, lambda r: 1.5, 0.8, 0.1, 100) is None
    assert rate(lambda r: 1.0, lambda r: 100.0, 0.8, 0.1, 100) == 100


# The line


def test_the_token_bucket_keeps_its_rate_and_forgives_no_more_than_its_burst(study):
    now = [0.0]
    bucket = study.token_relay.TokenBucket(100.0, 50.0, clock=lambda: now[0])
    assert bucket.take(50) == 0.0
    assert bucket.take(100) == pytest.approx(1.0)
    now[0] = 1.0  # the debt is paid, nothing is saved
    assert bucket.take(10) == pytest.approx(0.1)
    now[0] = 1000.0  # however long nothing was sent
    assert bucket.take(150) == pytest.approx(1.0)


def test_a_bucket_is_small_and_holds_two_segments(study):
    assert study.shaped_link.burst_bytes(0.1) == 2 * 1514
    assert study.shaped_link.burst_bytes(100) == 62_500


def test_namespaces_shaper_and_processes_are_gone_after_an_error(study):
    shaped_link = study.shaped_link
    if not shaped_link.can_shape():
        pytest.skip("needs root and iproute2")
    seen = {}

    def interrupted() -> None:
        with shaped_link.shaped_link(8) as link:
            seen["child"] = link.popen("edge", ["sleep", "60"], core=0)
            seen["name"] = link.names["cloud"]
            seen["shaper"] = shaped_link._run("tc", "-n", seen["name"], "qdisc", "show")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "tbf" in seen["shaper"]
    assert seen["child"].poll() is not None
    assert seen["name"] not in shaped_link._ip("netns", "list")


def test_leftovers_of_dead_processes_are_removed_and_others_are_not(study):
    shaped_link = study.shaped_link
    if not shaped_link.can_shape():
        pytest.skip("needs root and iproute2")
    dead, other = "privhier-99999999-0-edge", "privhier-99999999-0-edge-not-ours"
    for name in (dead, other):
        shaped_link._ip("netns", "add", name)
    try:
        shaped_link.remove_leftovers()
        listed = [line.split(" ")[0] for line in shaped_link._ip("netns", "list").splitlines()]
    finally:
        for name in (dead, other):
            shaped_link._run("ip", "netns", "delete", name, check=False)
    assert dead not in listed
    assert other in listed


# Bytes


def test_a_batch_survives_packing(study):
    labels = np.array([[1, 0], [3, -1], [299, 2]])
    epoch, last, found, body = study.byte_stream.unpack(study.byte_stream.pack(7, True, labels, b"body"))
    assert (epoch, last, bytes(body)) == (7, True, b"body")
    np.testing.assert_array_equal(found, labels)


def test_lower_quality_is_smaller_and_webp_is_smaller_than_jpeg(study, data):
    sizes = {codec: len(study.pictures.ENCODERS[codec](data.images[:8])) for codec in study.regimes.CODECS}
    assert sizes["webp50"] < sizes["jpeg50"] < sizes["jpeg"] < sizes["raw"]


@pytest.mark.parametrize(
    ("codec", "share", "off"), [("jpeg", 0.7, 8), ("jpeg50", 0.7, 12), ("webp50", 0.85, 16)]
)
def test_one_picture_a_batch_is_smaller_than_one_an_image_and_looks_the_same(study, data, codec, share, off):
    pixels = data.images[:8]
    encode = study.pictures.ENCODERS[codec]
    tall = encode(pixels)
    assert len(tall) < share * sum(len(encode(pixel[None])) for pixel in pixels)
    back = study.pictures.DECODERS[codec](tall, 8, 32)
    assert back.shape == pixels.shape
    for one, other in zip(back, pixels, strict=True):  # in the same order, too
        assert np.abs(one.astype(float) - other).mean() < off
    np.testing.assert_array_equal(study.pictures.from_raw(study.pictures.raw_bytes(pixels), 8, 32), pixels)


def test_the_edge_is_at_most_a_window_ahead(study):
    cloud = study.byte_stream.CloudPort("127.0.0.1", window=2)
    edge = study.byte_stream.EdgePort(f"127.0.0.1:{cloud.port}", window=2)
    sent = []

    def send() -> None:
        for number in range(4):
            edge.send(bytes([number]))
            sent.append(number)
        edge.close()

    thread = threading.Thread(target=send)
    thread.start()
    taken = [cloud.receive(), cloud.receive()]
    thread.join(timeout=0.2)
    assert sent == [0, 1]  # no reply yet: the third waits
    for _ in range(4):
        cloud.reply()
    taken += [cloud.receive(), cloud.receive(), cloud.receive()]
    cloud.close()
    thread.join(timeout=10)
    assert taken == [b"\x00", b"\x01", b"\x02", b"\x03", None]


# The networks


def test_the_whole_network_is_the_runs_own_put_together(study, config, data, facts):
    edge, tail = build_model(config, data)
    images = normalize(data.pixels(data.splits.train[:4]))
    whole = study.whole_network.WholeNetwork(config, facts)
    for ours, parts in zip(whole(images), tail(edge.features(images)), strict=True):
        torch.testing.assert_close(ours, parts, rtol=0, atol=0)


def serve(study, edge, cloud):
    """Both ends of a baseline over loopback; returns what the cloud's end returns."""
    port = study.byte_stream.CloudPort("127.0.0.1", window=8)
    results = {}

    def run() -> None:
        line = study.byte_stream.EdgePort(f"127.0.0.1:{port.port}", window=8)
        line.exchange(b"hello")
        results["edge"] = edge(line)
        line.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert port.receive() == b"hello"
    results["cloud"] = cloud(port)
    port.close()
    thread.join(timeout=20)
    return results


def test_split_learning_is_training_the_whole_network(study, config, data, facts, monkeypatch):
    baselines = study.baselines
    front, tail = study.whole_network.halves(config, facts)
    monkeypatch.setattr(baselines, "halves", lambda *_: (front, tail))
    serve(
        study,
        lambda port: baselines.edge_split(config, data, facts, port, 1),
        lambda port: baselines.cloud_split(config, facts, port),
    )
    whole = study.whole_network.WholeNetwork(config, facts).train()
    optimizer = build_optimizer(whole.parameters(), config.training.cloud)
    draws, options = study.whole_network.augmentation_stream(config, 0), config.training.augment
    for records, _ in baselines._batches(config, data, 0):
        pixels = augment(data.pixels(records), options.flip, options.shift, draws)
        optimizer.zero_grad()
        mean_task_loss(whole(normalize(pixels)), data.task[records]).backward()
        optimizer.step()
    for ours, other in ((whole.front, front), (whole.tail, tail)):
        for name, value in ours.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regime", ["images_raw_anew", "images_jpeg_once"])
def test_images_go_up_every_epoch_or_once(study, config, data, facts, regime):
    baselines, n = study.baselines, len(data.splits.train)
    found = serve(
        study,
        lambda port: baselines.edge_images(config, data, port, regime, 2),
        lambda port: baselines.cloud_images(config, facts, port, regime, 2),
    )
    cloud, edge = found["cloud"].epochs, found["edge"].epochs
    assert [entry["images"] for entry in cloud] == [n, n]
    sent = [entry["bytes_up"] for entry in cloud]
    if regime.endswith("anew"):
        assert sent[0] == sent[1] >= n * 3 * 32 * 32
        assert [entry["bytes_up"] for entry in edge] == sent
    else:
        assert 0 < sent[0] < n * 3 * 32 * 32
        assert sent[1] == 0
        assert len(edge) == 1


# Records


def joint_sides(epochs):
    edge = [
        {"phase": "joint", "seconds": e, "compute_seconds": 0.5, "records": 100, "bytes": 30_000}
        for e, _ in epochs
    ]
    edge.append({"phase": "test", "seconds": 9.0, "compute_seconds": 0.0, "records": 10, "bytes": 3000})
    return {
        "edge": edge,
        "cloud": [{"phase": "joint", "seconds": c, "busy_seconds": c / 2} for _, c in epochs],
    }


def test_a_joint_epoch_is_the_longer_side_and_the_first_is_left_out(study):
    sides = joint_sides([(90.0, 90.0), (1.0, 2.0), (4.0, 3.0)])
    found = study.runner.product_phases(
        "joint", sides, {"up": 70_000, "down": 700}, payload=70_000, rate_mbit=1.0
    )
    assert found["phases"] == {"epoch": pytest.approx(30.0)}
    assert (found["images"], found["payload_up"]) == (100, 300)
    assert found["up"] == pytest.approx(300)  # what else went up is not charged to training images
    record = {**found, "rate_mbit": 1.0, "sides": sides}
    bounds = study.runner.joint_bounds(record)
    assert bounds == pytest.approx({"edge": 5.0, "link": 2.4, "cloud": 12.5})


def test_release_once_has_three_phases(study):
    edge = [{"phase": "pretrain", "seconds": s, "records": 0, "bytes": 0} for s in (7.0, 2.0)]
    edge.append({"phase": "release", "seconds": 0.1, "records": 100, "bytes": 30_000, "messages": 4})
    cloud = [{"phase": "cloud", "seconds": s} for s in (13.0, 3.0)]
    wire = {"up": 33_000, "down": 300}
    sides = {"edge": edge, "cloud": cloud}
    found = study.runner.product_phases("release_once", sides, wire, payload=30_000, rate_mbit=1.0)
    # 25 of 330 bytes each are on the line before the cloud has anything to train on.
    assert found["phases"] == pytest.approx({"pretrain": 20.0, "release": 130.66, "cloud": 30.0})
    assert found["up"] == pytest.approx(330)


def test_baseline_phases(study):
    entries = [{"seconds": s, "images": 100} for s in (5.0, 1.0, 3.0)]
    phases = study.runner.baseline_phases
    assert phases("split", {"cloud": entries, "edge": []})["phases"] == {"epoch": 20.0}
    once = phases("images_raw_once", {"cloud": entries, "edge": []})["phases"]
    assert once == {"first": 50.0, "cached": 20.0}
    assert phases("edge_only", {"edge": entries})["phases"] == {"epoch": 20.0}


def test_every_configuration_can_be_shortened_and_widened(study):
    for network in (*study.measure.NETWORKS, *study.measure.CIFAR10):
        path = str(study.measure.config_path(network))
        config = study.whole_network.study_config(path, [], wide=False)
        assert config.name == network
        short = study.whole_network.study_config(path, study.runner.sized(config, 320), wide=True)
        assert short.model.bottleneck.kind == "none"
        images = short.dataset.options.get("images") or short.dataset.limit
        assert images * short.dataset.splits.train == 320
        assert sum(study.runner.SPLITS.values()) == pytest.approx(1)


def test_cells_are_chosen_by_their_whole_name(study):
    cells = study.measure.chosen(study.measure.grid(), "resnet18_32/joint/(1|5)")
    assert [cell.name for cell in cells] == ["resnet18_32/joint/1", "resnet18_32/joint/5"]


def test_a_cell_has_whole_batches_within_its_seconds(study):
    images_for = study.measure.images_for
    assert images_for({"epoch": 10.0}, seconds=10, most=5000) == 992
    assert images_for({"epoch": 10.0}, seconds=10, most=640) == 640
    assert images_for({"pretrain": 1.0, "cloud": 1000.0}, seconds=10, most=640) == 128


def make_study(study, stages, records=()):
    coded = {"jpeg": 500.0, "jpeg50": 300.0, "webp50": 200.0}
    sizes = {"raw": 3072.0, **coded, "features": 1024.0, "release": 256.0}
    profile = study.measure.Profile(stages, {}, sizes)
    plan = study.regimes.Plan(1000, 10, 5, 5)
    return study.results.Study("toy", {False: profile}, list(records), plan)


def test_a_measured_cell_goes_before_the_model_and_lends_it_its_bytes(study, stages):
    record = {"regime": "joint", "rate_mbit": 1.0, "phases": {"epoch": 9.0}, "up": 2000.0, "down": 20.0}
    toy = make_study(study, stages, [record])
    measured, modeled = toy.row("joint", 1.0), toy.row("joint", 0.5)
    assert (measured.measured, measured.seconds) == (True, 90.0)
    assert (modeled.measured, modeled.phases) == (False, {"epoch": 32.0})
    assert not any(regime.endswith("_wide") for regime in toy.regimes)
    lines = study.table.to_csv([toy]).splitlines()
    assert "toy,joint,1,measured,90.0,epoch=9.000,2000,20" in lines
    assert len(lines) == 1 + len(toy.regimes) * len(study.measure.RATES)


def test_the_figure_is_small_and_the_same_again(study, stages, tmp_path):
    toy = make_study(study, stages)
    for name in ("a.svg", "b.svg"):
        study.figure.draw([toy], tmp_path / name)
    first = (tmp_path / "a.svg").read_bytes()
    assert first == (tmp_path / "b.svg").read_bytes()
    assert b"release once" in first
    assert len(first) < 60_000


def test_accuracy_is_compared_seed_by_seed_at_the_same_width(study):
    def cell(regime, seed, accuracy):
        return {
            "network": "n",
            "cut": "layer2",
            "regime": regime,
            "seed": seed,
            "n_train": 10,
            "n_test": 5,
            "balanced_accuracy": accuracy,
            "auc": accuracy,
        }

    cells = [cell("cloud", 0, 0.9), cell("cloud", 1, 0.8), cell("joint", 0, 0.89), cell("joint", 1, 0.82)]
    cells.append(cell("joint_wide", 0, 0.5))
    rows = {row["regime"]: row for row in study.accuracy.summary(cells)}
    assert rows["joint"]["balanced_accuracy_points"] == pytest.approx(0.5)
    assert rows["joint_wide"]["auc_points"] is None
    assert "0.8550" in study.accuracy.to_csv(list(rows.values()))
