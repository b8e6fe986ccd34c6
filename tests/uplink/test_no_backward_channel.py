"""A malicious cloud has no channel: no message carries a gradient or a weight to the edge.

Feature-space hijacking (Pasquini, Ateniese and Bernaschi, 2021) needs the client to step along a gradient
the server sends. Here nothing can be sent, whatever the cloud does with what it gets.
"""

from __future__ import annotations

import json
import runpy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from privhier.datasets.load import load_dataset
from privhier.errors import UplinkError
from privhier.training.cloud import CloudTrainer
from privhier.training.folder import RunFolder
from privhier.training.prepare import build_mechanism, prepare
from privhier.training.trainer import Trainer
from privhier.uplink.codec import ReleaseMessage, decode, encode

small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]
WORDS = {
    "run_id", "split", "phase", "epoch", "batch", "edge", "records", "payload", "task_labels", "wire",
    "letters",
}  # fmt: skip


def message() -> ReleaseMessage:
    records = np.arange(3, dtype=np.int64)
    return ReleaseMessage("run", "train", "joint", 0, 0, records, np.ones((3, 4), np.float32))


def test_the_message_has_no_word_for_a_gradient_or_a_weight():
    assert {field.name for field in fields(ReleaseMessage)} == WORDS


@pytest.mark.parametrize("name", ["gradient", "weight", "feature_gradient", "payload.grad"])
def test_a_message_with_such_a_tensor_is_refused(name):
    honest = message()
    data = encode(honest)
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = {**load(data), name: np.ones((3, 4), np.float32)}
    with pytest.raises(UplinkError):
        decode(save(tensors, metadata=metadata))
    decode(data)  # without it the message is a good one


def edge_after(folder, cloud, monkeypatch) -> dict[str, torch.Tensor]:
    """Edge weights after two joint epochs against this cloud."""
    config = small_config(images=160, epochs=(0, 2, 0), release={"mechanism": "gaussian", "sigma": 0.1})
    data = prepare(config, load_dataset(config.dataset, seed=config.seed)).data
    train = data.splits.train
    mechanism = build_mechanism(config, len(train))
    monkeypatch.setattr(CloudTrainer, "receive_and_train", cloud)
    monkeypatch.setattr(CloudTrainer, "last_loss", 0.0, raising=False)
    folder.mkdir()
    trainer = Trainer(config, data, mechanism, RunFolder(folder), device=torch.device("cpu"), keep=train[:0])
    trainer._joint(0)
    trainer._joint(1)
    return {name: value.clone() for name, value in trainer.edge.edge.state_dict().items()}


def test_whatever_the_cloud_does_the_edge_learns_the_same(tmp_path, monkeypatch):
    """An idle cloud, and one that overwrites what it got, answers with gradients and steps on them."""

    def idle(self, data):
        return None

    def hijacking(self, data):
        got = decode(data)
        wanted = torch.ones(got.payload.shape, requires_grad=True)
        (wanted - torch.from_numpy(np.array(got.payload))).square().sum().backward()
        for array in (got.payload, got.records):
            if array.flags.writeable:
                array[...] = 7
        torch.manual_seed(666)  # nor can it steer the edge's own randomness
        return wanted.grad

    with torch.random.fork_rng():
        honest = edge_after(tmp_path / "a", idle, monkeypatch)
        attacked = edge_after(tmp_path / "b", hijacking, monkeypatch)
    assert all(torch.equal(honest[name], attacked[name]) for name in honest)
