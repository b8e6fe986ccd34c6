"""The three-number schedule: what goes up, how often, what flows back (nothing), and exact resume."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import Choice, EdgeConfig, RunConfig, parse_config
from privhier.datasets.load import load_dataset
from privhier.defenses.base import build_defense
from privhier.errors import CheckpointError, ConfigError, GuaranteeError
from privhier.privacy.ledger import Ledger
from privhier.training import release as release_room
from privhier.training.cloud import CloudTrainer
from privhier.training.deploy import load_edge
from privhier.training.edge import EdgeTrainer
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import Trained, build_model, load_trained
from privhier.training.trainer import Trainer
from privhier.uplink import outgoing as outgoing_room
from privhier.uplink.codec import encode

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


def make_config(pretrain: int, joint: int, cloud: int, **release) -> RunConfig:
    return small_config(
        epochs=(pretrain, joint, cloud),
        batch=48,
        dataset={"sensitive": ["male", "identity"]},
        release=release or {"mechanism": "gaussian", "sigma": 0.3},
        defense={"name": "gradient_reversal", "options": {"adversary_steps": 1}},
    )


def trainer(config: RunConfig, folder: Path) -> Trainer:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    keep = prepared.data.splits.train[:20]
    mechanism = build_mechanism(config, len(prepared.data.splits.train))
    return Trainer(config, prepared.data, mechanism, run, device=CPU, keep=keep)


def weights(trained: Trained) -> list[np.ndarray]:
    modules = (trained.edge, trained.tail)
    return [value.numpy() for module in modules for value in module.state_dict().values()]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("pretrain", "joint", "cloud"), [(0, 2, 0), (1, 2, 0), (1, 0, 2), (1, 1, 1)])
def test_every_regime_releases_as_often_as_it_says(tmp_path, pretrain, joint, cloud):
    config = make_config(pretrain, joint, cloud)
    job = trainer(config, tmp_path)
    trained = job.run()
    releases = joint + (1 if cloud else 0)
    splits = job.data.splits
    assert trained.test_releases.shape == (len(splits.test), releases, 4)
    assert trained.training_releases.shape == (20, releases, 4)
    ledger = Ledger.load(RunFolder(tmp_path).ledger)
    for split in ("train", "val", "test"):
        assert ledger.releases_per_record(split) == releases
    assert trained.uplink["records"] == releases * sum(map(len, (splits.train, splits.val, splits.test)))
    assert len(trained.history) == pretrain + joint + cloud
    assert np.isfinite(trained.test_releases).all()


def test_layout_and_slices_change_last_digits_only_and_keep_out_of_dp_sgd(tmp_path):
    config = make_config(2, 0, 1)
    found = []
    for name in ("auto", "false", "whole"):
        layout = "auto" if name == "auto" else False
        runtime = config.runtime.model_copy(update={"channels_last": layout})
        job = trainer(config.model_copy(update={"runtime": runtime}), tmp_path / name)
        kinds = {type(module).__name__ for module in job.edge.edge.trunk.modules()}
        assert ("ChannelsLastGroupNorm" in kinds) == (name == "auto")
        job.edge._slice = None if name == "whole" else 16
        found.append(weights(job.run()))
    assert not same(found[0], found[2])
    for ours in found[:2]:
        for a, b in zip(ours, found[2], strict=True):
            np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)
    private = config.model_copy(update={"edge": EdgeConfig(dp_sgd={"noise_multiplier": 1.0})})
    edge, _ = build_model(private, job.data)
    defense = build_defense(Choice(name="none"))
    EdgeTrainer(private, edge, defense, job.mechanism, total_steps=1, device=CPU)
    assert not any(type(module).__name__ == "ChannelsLastGroupNorm" for module in edge.modules())
    with pytest.raises(ConfigError, match=r"runtime\.channels_last must be auto or false under edge\.dp_sgd"):
        small_config(edge={"dp_sgd": {"noise_multiplier": 1.0}}, runtime={"channels_last": True})


def test_the_training_victims_releases_are_what_the_cloud_received(tmp_path, monkeypatch):
    received: dict[int, list[np.ndarray]] = {}
    original = CloudTrainer.train_step
    job = trainer(make_config(0, 2, 0), tmp_path)

    from privhier.training import cloud

    def spy(data: bytes):
        message = decode(data)
        for record, row in zip(message.records.tolist(), message.payload, strict=True):
            received.setdefault(record, []).append(np.array(row))
        return message

    decode = cloud.decode
    monkeypatch.setattr(cloud, "decode", spy)
    trained = job.run()
    assert CloudTrainer.train_step is original
    for row, record in enumerate(job.data.splits.train[:20].tolist()):
        assert np.array_equal(np.stack(received[record]), trained.training_releases[row])


def test_nothing_flows_back_from_cloud_to_edge(tmp_path, monkeypatch):
    """Were anything of the cloud to reach the edge, an idle cloud would change the edge's weights."""
    trained = trainer(make_config(0, 2, 0), tmp_path / "a").run()
    monkeypatch.setattr(CloudTrainer, "train_step", lambda self, payload, labels: None)
    idle = trainer(make_config(0, 2, 0), tmp_path / "b").run()
    edge, other = trained.edge.state_dict(), idle.edge.state_dict()
    assert all(torch.equal(edge[name], other[name]) for name in edge)
    assert not same(weights(trained), weights(idle))


@pytest.mark.parametrize(
    "stop", [("pretrain", 0), ("joint", 0), ("joint", 1), ("release", 0), ("cloud", 0), ("test", 0)]
)
def test_resuming_gives_the_undisturbed_numbers(tmp_path, stop):
    config = make_config(1, 2, 2)
    undisturbed = trainer(config, tmp_path / "a").run()
    broken = trainer(config, tmp_path / "b")
    phase, epoch = stop
    work = broken._steps[phase]

    def fail(number: int):
        metrics = work(number)
        if number == epoch:
            raise KeyboardInterrupt  # after the work, before the checkpoint: the worst moment
        return metrics

    broken._steps[phase] = fail
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    with pytest.raises(CheckpointError, match="no finished training"):
        load_trained(config, broken.data, broken.folder)
    resumed = trainer(config, tmp_path / "b").run()
    assert same(weights(undisturbed), weights(resumed))
    assert np.array_equal(undisturbed.test_releases, resumed.test_releases)
    assert np.array_equal(undisturbed.training_releases, resumed.training_releases)
    assert undisturbed.history == resumed.history
    assert undisturbed.uplink == resumed.uplink
    ledgers = [Ledger.load(RunFolder(tmp_path / name).ledger) for name in "ab"]
    assert ledgers[0].releases_per_record("train") == ledgers[1].releases_per_record("train") == 3


def test_a_redrawn_release_under_system_noise_is_charged_again(tmp_path):
    config = parse_config(
        {**make_config(0, 1, 0).model_dump(mode="json"), "privacy": {"noise_source": "system"}}
    )
    broken = trainer(config, tmp_path)
    work = broken._steps["joint"]

    def fail(epoch: int):
        work(epoch)
        raise KeyboardInterrupt

    broken._steps["joint"] = fail
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    trainer(config, tmp_path).run()
    assert Ledger.load(RunFolder(tmp_path).ledger).releases_per_record("train") == 2


def test_wide_releases_go_up_in_messages_that_fit(tmp_path, monkeypatch):
    sizes = []

    def spy(message, **options):
        data = encode(message, **options)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(release_room, "MAX_BYTES", release_room._HEADER + 4 * 4 * 10)  # ten records of four
    monkeypatch.setattr(outgoing_room, "encode", spy)
    job = trainer(make_config(0, 0, 1), tmp_path)
    job.run()
    splits = job.data.splits
    assert len(sizes) == sum(-(-len(getattr(splits, name)) // 10) for name in ("train", "val", "test"))


def test_another_configuration_cannot_resume_it(tmp_path):
    trainer(make_config(1, 1, 0), tmp_path).run()
    with pytest.raises(CheckpointError, match="another configuration"):
        trainer(make_config(1, 2, 0), tmp_path).run()


def test_sabotage_a_release_that_was_not_charged_fails_the_run(tmp_path):
    job = trainer(make_config(0, 1, 0), tmp_path)
    charge = job.releaser.charge
    job.releaser.charge = lambda split, *rest: None if split == "val" else charge(split, *rest)
    with pytest.raises(GuaranteeError):
        job.run()


def test_training_leaves_the_global_generators_alone(tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  (the global generator is what is under test)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    trainer(make_config(1, 1, 1), tmp_path).run()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_a_reloaded_edge_noises_freshly_in_evaluation_mode(tmp_path):
    job = trainer(make_config(0, 1, 0), tmp_path)
    job.run()
    edge = load_edge(tmp_path).eval()
    images = job.data.pixels(job.data.splits.test[:8])
    first, second = edge(images), edge(images)
    assert first.shape == (8, 4)
    assert not torch.equal(first, second)
    spread = torch.stack([edge(images) for _ in range(200)]).std(0).mean()
    assert float(spread) == pytest.approx(0.3, rel=0.1)


def test_without_mechanism_a_reloaded_edge_gives_the_released_features(tmp_path):
    job = trainer(make_config(0, 0, 1, mechanism="none"), tmp_path)
    trained = job.run()
    again = load_edge(tmp_path).eval()(job.data.pixels(job.data.splits.test))
    assert torch.allclose(again, torch.from_numpy(trained.test_releases[:, 0].copy()), atol=1e-5)


def test_identity_exits_know_training_people_only(tmp_path):
    job = trainer(make_config(0, 1, 0), tmp_path)
    column = job.data.sensitive[:, 1]
    splits = job.data.splits
    assert (column[splits.train] >= 0).all()
    assert (column[splits.test] == -1).all()
    assert (column[splits.aux] == -1).all()
    assert int(column.max()) + 1 == job.data.sensitive_classes["identity"]
