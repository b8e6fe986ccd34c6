"""Letters through the whole schedule: found once, released as charged, resumed bit for bit, by any cut."""

from __future__ import annotations

import math
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import RunConfig
from privhier.datasets.load import load_dataset
from privhier.errors import CheckpointError, DataError, GuaranteeError
from privhier.models.backbones import build_backbone
from privhier.models.staged import backbones
from privhier.models.weights import load_weights
from privhier.privacy.events import LetterEvent
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training import code as code_room
from privhier.training.deploy import TrainedTail, load_edge
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trained import Trained, build_model, load_trained
from privhier.training.trainer import Trainer
from privhier.uplink.codec import decode

CPU = torch.device("cpu")
SMALL = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))
small_config = SMALL["small_config"]
LETTERS = {"kind": "letters", "size": 1, "letters": 6}


def make_config(epochs=(2, 0, 1), *, release=None, bottleneck=None, **changes) -> RunConfig:
    return small_config(
        epochs=epochs,
        images=160,
        size=16,
        model={"bottleneck": {**LETTERS, **(bottleneck or {})}},
        release={"mechanism": "randomized_response", "target_epsilon": 6.0} if release is None else release,
        **changes,
    )


def trainer(config: RunConfig, folder: Path) -> Trainer:
    prepared = prepare(config, load_dataset(config.dataset, seed=config.seed))
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    train = prepared.data.splits.train
    mechanism = build_mechanism(config, len(train))
    return Trainer(config, prepared.data, mechanism, run, device=CPU, keep=train[:20])


def weights(trained: Trained) -> dict[str, np.ndarray]:
    parts = {"edge": trained.edge, "tail": trained.tail}
    return {
        f"{part}.{name}": value.numpy()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("epochs", "bottleneck"),
    [
        ((2, 0, 1), {}),
        ((2, 0, 1), {"fit": "quantiles"}),
        ((2, 1, 1), {"size": 3, "fit": "kmeans"}),
        ((1, 2, 1), {"size": 2, "groups": 3}),
        ((0, 2, 0), {"fit": "learned"}),
        ((1, 1, 1), {"size": 3, "fit": "learned", "groups": 2}),
    ],
)
def test_every_regime_releases_letters_as_charged(tmp_path, epochs, bottleneck):
    config = make_config(epochs, bottleneck=bottleneck)
    job = trainer(config, tmp_path)
    trained = job.run()
    releases, groups = epochs[1] + (epochs[2] > 0), bottleneck.get("groups", 1)
    assert trained.test_releases.shape == (len(job.data.splits.test), releases, groups)
    assert trained.training_releases.shape == (20, releases, groups)
    for kept in (trained.test_releases, trained.training_releases):
        assert np.isin(kept, np.arange(6)).all()
    ledger = Ledger.load(RunFolder(tmp_path).ledger)
    events = [event for event in ledger.events if isinstance(event, LetterEvent)]
    assert len(events) == len(ledger.events)
    assert {(event.letters, event.groups) for event in events} == {(6, groups)}
    for account in ledger.accounts().values():
        assert 6.0 * (1 - 1e-12) <= account.epsilon <= 6.0
    assert ledger.guarantees(delta=1e-5)[0].epsilon <= 6.0
    facts = RunFolder(tmp_path).sealed.read_json(RunFolder(tmp_path).training)
    assert len(facts["code"]) == groups
    assert all(0 < usage["used"] <= 6 for usage in facts["code"])


@pytest.mark.parametrize("stop", [("pretrain", 1), ("joint", 0), ("release", 0), ("cloud", 0), ("test", 0)])
def test_resuming_gives_the_undisturbed_numbers(tmp_path, stop):
    config = make_config((2, 1, 1))
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
    resumed = trainer(config, tmp_path / "b").run()
    assert same(weights(undisturbed), weights(resumed))
    assert np.array_equal(undisturbed.test_releases, resumed.test_releases)
    assert np.array_equal(undisturbed.training_releases, resumed.training_releases)
    assert undisturbed.history == resumed.history
    ledgers = [Ledger.load(RunFolder(tmp_path / name).ledger).events for name in "ab"]
    assert ledgers[0] == ledgers[1]


def test_letters_are_found_once_and_then_stay(tmp_path, monkeypatch):
    fits = []
    fit = code_room.fit_codebook
    monkeypatch.setattr(code_room, "fit_codebook", lambda *a, **k: fits.append(1) or fit(*a, **k))
    job = trainer(make_config((2, 2, 1)), tmp_path)
    trained = job.run()
    assert len(fits) == 1
    folder = RunFolder(tmp_path)
    loaded, _ = build_model(job.config, job.data)
    for epoch in range(2):
        load_weights(loaded, folder.snapshot(epoch))
        assert torch.equal(loaded.codebook.values, trained.edge.codebook.values)


def test_nothing_is_fitted_to_other_than_training_records(tmp_path, monkeypatch):
    seen = []
    features = code_room.edge_features

    def spy(edge, images, records, **more):
        seen.append(records)
        return features(edge, images, records, **more)

    monkeypatch.setattr(code_room, "edge_features", spy)
    job = trainer(make_config((1, 0, 1)), tmp_path)
    job.side.pretrain(0)
    assert len(seen) == 1
    assert np.array_equal(seen[0], job.data.splits.train)


def test_before_there_are_letters_nothing_can_go_up(tmp_path):
    job = trainer(make_config((1, 0, 1)), tmp_path)
    with pytest.raises(GuaranteeError, match="is not the mechanism that this run is charged for"):
        job.side.joint(0, _Taking())


class _Taking:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, message) -> None:
        self.messages.append(message.data)


def test_what_goes_up_is_the_answers_packed(tmp_path):
    job = trainer(make_config((1, 0, 1)), tmp_path)
    job.side.pretrain(0)
    uplink = _Taking()
    job.side.release(uplink, "train", "cloud", 0)
    sizes = 0
    for data in uplink.messages:
        message = decode(data)
        assert (message.wire, message.letters) == ("letters", 6)
        assert message.payload.dtype == np.int64
        sizes += math.ceil(3 * len(message.records) / 8)
        assert data.count(b'"letters"') >= 1
    records = len(job.data.splits.train)
    assert sizes <= records, "at most a byte a record for K <= 256"


def test_the_exits_learn_through_the_channel(tmp_path, monkeypatch):
    """With answers that say nothing, exits that learn on answers must say nothing either."""
    blind = make_config((2, 0, 1), release={"mechanism": "randomized_response", "target_epsilon": 1e-6})
    job = trainer(blind, tmp_path)
    job.run()
    edge = job.side.edge.eval()
    with torch.no_grad():
        values = edge.codebook.values.view(6, 1)
        (logits,) = edge.task_logits(values)
        spread = torch.softmax(logits, 1)[:, 1]
    assert float(spread.max() - spread.min()) < 0.35


@pytest.mark.parametrize("source", ["seeded", "system"])
def test_deployed_edge_answers_through_the_channel(tmp_path, source):
    weak = {"mechanism": "randomized_response", "target_epsilon": 1.0}
    job = trainer(make_config((1, 0, 1), release=weak, privacy={"noise_source": source}), tmp_path)
    trained = job.run()
    deployed = load_edge(tmp_path)
    pixels = job.data.pixels(job.data.splits.test)
    first, again = deployed(pixels), deployed(pixels)
    assert first.letters.shape == (len(pixels), 1)
    assert bool((first.letters != again.letters).any())
    assert deployed.mechanism == trained.mechanism


def test_under_system_noise_every_answer_takes_its_own_entropy(tmp_path, monkeypatch):
    config = make_config((1, 0, 1), bottleneck={"groups": 2}, privacy={"noise_source": "system"})
    job = trainer(config, tmp_path)
    job.side.pretrain(0)
    taken = []
    urandom = os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: taken.append(n) or urandom(n))
    job.side.release(_Taking(), "val", "cloud", 0)
    draws = 2 if job.mechanism.mechanism == "randomized_response" else 1
    assert sum(taken) == 8 * draws * 2 * len(job.data.splits.val)


def test_an_altered_code_is_refused(tmp_path):
    config = make_config((1, 0, 1))
    job = trainer(config, tmp_path)
    job.run()
    edge = RunFolder(tmp_path).edge
    data = bytearray(edge.read_bytes())
    data[-5] ^= 1
    edge.write_bytes(bytes(data))
    with pytest.raises(CheckpointError):
        load_trained(config, job.data, RunFolder(tmp_path))


def test_under_dp_sgd_the_code_is_learned_inside_the_mechanism(tmp_path):
    config = make_config((1, 1, 1), edge={"dp_sgd": {"noise_multiplier": 1.0}}, release={"mechanism": "none"})
    assert config.model.bottleneck.fit == "learned"
    job = trainer(config, tmp_path)
    before = job.side.edge.codebook.values.clone()
    job.run()
    assert not torch.equal(before, job.side.edge.codebook.values)


@pytest.mark.parametrize("name", sorted(backbones.names()))
def test_every_backbone_and_cut_takes_letters(name):
    config = small_config(
        size=64, model={"backbone": name, "bottleneck": {**LETTERS, "groups": 4}}, epochs=(1, 0, 1)
    )
    prepared = prepare(config, load_dataset(config.dataset, seed=0))
    built = build_backbone(name, n_outputs=2, image_size=64)
    for cut in list(built.feature_shapes)[:-1]:
        model = config.model.model_copy(update={"cut": cut})
        edge, tail = build_model(config.model_copy(update={"model": model}), prepared.data)
        assert edge.release_shape == (4,)
        letters = torch.randint(0, 6, (3, 4))
        (logits,) = tail(letters.float())
        assert logits.shape == (3, 2)
        assert edge.features(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_a_wide_code_gives_the_numbers_of_its_letters(tmp_path):
    """Values of 1,200 numbers and their letter are one and the same to a cloud that holds the table."""
    config = make_config((1, 0, 1), bottleneck={"size": 32, "letters": 4})
    job = trainer(config, tmp_path)
    job.run()
    edge = job.side.edge.eval()
    wide = torch.randn(4, 1200, generator=torch.Generator().manual_seed(0))
    mechanism: ReleaseMechanism = job.mechanism
    z = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    answers = mechanism.sanitize(z, SeededNoise(0, "wide"), edge.codebook).letters[:, 0]
    maps = wide[answers]
    back = torch.cdist(maps, wide).argmin(dim=1)
    assert torch.equal(back, answers)


def test_a_tail_of_letters_takes_letters_and_not_their_codes():
    config = small_config(size=32, model={"bottleneck": {**LETTERS, "groups": 2}}, epochs=(1, 0, 1))
    _, network = build_model(config, prepare(config, load_dataset(config.dataset, seed=0)).data)
    tail = TrainedTail(network.eval(), (2,), {})
    letters = np.array([[0, 5], [3, 1]])
    (said,) = tail.probabilities(letters).values()
    (small,) = tail.probabilities(letters.astype(np.uint8)).values()
    assert np.array_equal(said, small)
    # A letter too many of the first group is the second's first: read without a word, unless it is refused.
    for wrong in (letters.astype(np.float32), letters + 0.4, letters + 1, letters - 1):
        with pytest.raises(DataError, match="must be letters: whole numbers from 0 to 5"):
            tail.predict(wrong)
    assert tail.predict(np.zeros((0, 2), np.int64))
