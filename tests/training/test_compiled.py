"""torch.compile of the edge: the same training but for last digits, in the hash, and never under Opacus."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from privhier.config import RunConfig
from privhier.config.shared import shared_part
from privhier.datasets.load import load_dataset
from privhier.errors import ConfigError, TrainingError
from privhier.training import cloud, compiled
from privhier.training.cloud import CloudTrainer
from privhier.training.commons import training_key
from privhier.training.finite import LOOK_EVERY, LossWatch, weights_text
from privhier.training.folder import RunFolder
from privhier.training.occupancy import occupy
from privhier.training.prepare import build_mechanism, pick_device, prepare
from privhier.training.trainer import Trainer

CPU = torch.device("cpu")
small_config = runpy.run_path(str(Path(__file__).parents[1] / "small.py"))["small_config"]


def make(**runtime) -> RunConfig:
    return small_config(epochs=(2, 0, 1), runtime={"device": "cpu", "threads": 1, **runtime})


def trained(config: RunConfig, folder: Path) -> dict[str, torch.Tensor]:
    data = prepare(config, load_dataset(config.dataset, seed=0)).data
    run = RunFolder(folder)
    occupy(run, config, "0" * 64)
    mechanism = build_mechanism(config, len(data.splits.train))
    trainer = Trainer(config, data, mechanism, run, device=CPU, keep=data.splits.train[:9])
    trainer.run()
    return trainer.edge.edge.state_dict()


def test_a_compiled_training_is_the_plain_one_but_for_last_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    plain, fast = (trained(make(compile=on), tmp_path / str(on)) for on in (False, True))
    assert list(plain) == list(fast)
    for name, value in plain.items():
        torch.testing.assert_close(fast[name], value, rtol=0.02, atol=0.02)


def test_what_is_compiled_is_what_trains(tmp_path, monkeypatch):
    seen = []

    def counting(module, inputs):
        seen.append(module)
        return module.forward

    monkeypatch.setattr(compiled, "BACKEND", counting)
    trained(make(compile=True), tmp_path)
    assert seen


def test_compile_is_in_every_hash_that_a_training_has():
    assert make(compile=True).hash() != make(compile=False).hash() == make().hash()
    assert training_key(make(compile=True)) != training_key(make(compile=False)) == training_key(make())


def test_opacus_and_layouts_do_not_go_with_it():
    with pytest.raises(ConfigError, match=r"runtime\.compile must be false under edge\.dp_sgd"):
        small_config(edge={"dp_sgd": {"noise_multiplier": 1.0}}, runtime={"compile": True})
    with pytest.raises(
        ConfigError, match=r"runtime\.channels_last must be auto or false under runtime\.comp"
    ):
        make(compile=True, channels_last=True)


def test_where_nothing_compiles_it_is_refused_before_anything_is_written(monkeypatch):
    def broken(module, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    with pytest.raises(ConfigError, match=r"runtime\.compile: True - .*no compiler here"):
        pick_device(make(compile=True))
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    assert pick_device(make(compile=True)) == CPU


def test_bfloat16_needs_a_cpu_that_has_it_and_trains_nearly_the_same(tmp_path, monkeypatch):
    low = make(precision="bfloat16")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_f": True})
    with pytest.raises(ConfigError, match=r"runtime\.precision: 'bfloat16' - .*AVX512-BF16"):
        pick_device(low)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})
    assert pick_device(low) == CPU
    full, first, again = (
        trained(config, tmp_path / name)
        for name, config in (("full", make()), ("first", low), ("again", low))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    gaps = [float((first[name] - full[name]).norm() / full[name].norm()) for name in full]
    assert 0 < max(gaps) < 0.3


class Counter(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts how often a value of a tensor is asked for: on a device, each time it is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_device_is_not_waited_for_between_two_looks_and_no_explosion_is_missed():
    watch = LossWatch(torch.device("cuda"))
    assert watch.every == LOOK_EVERY
    with Counter() as counter:
        assert all(watch.see(torch.tensor(1.0)) is None for _ in range(LOOK_EVERY - 2))
        assert watch.see(torch.tensor(float("nan"))) is None
    assert counter.count == 0
    assert watch.see(torch.tensor(1.0)) == "the loss is nan"
    assert watch.look() is None
    watch.see(torch.tensor(float("inf")))
    assert watch.look() == "the loss is inf"


def test_a_cpu_is_looked_at_every_step():
    watch = LossWatch(CPU)
    assert watch.see(torch.tensor(1.0)) is None
    assert watch.see(torch.tensor(float("nan"))) == "the loss is nan"


class OneTask(torch.nn.Linear):
    """Stands for a tail."""

    def forward(self, x):
        return [super().forward(x)]


def test_a_cloud_waits_as_seldom_and_ends_before_its_epoch_is_over(monkeypatch):
    config = small_config(training={"cloud": {"name": "sgd", "lr": 0.1}})

    def trainer(device: str) -> CloudTrainer:
        monkeypatch.setattr(cloud, "LossWatch", lambda _: LossWatch(torch.device(device)))
        return CloudTrainer(
            shared_part(config), OneTask(3, 2), total_steps=99, device=CPU, keep=np.zeros(0, dtype=np.int64)
        )

    good, bad = torch.ones(4, 3), torch.full((4, 3), torch.nan)
    labels = torch.zeros(4, 1, dtype=torch.int64)
    waiting, looking = trainer("cuda"), trainer("cpu")
    with Counter() as counter:
        for _ in range(LOOK_EVERY - 2):
            waiting.train_step(good, labels)
    assert counter.count == 0
    with pytest.raises(TrainingError, match="the loss is nan"):
        looking.train_step(bad, labels)
    assert weights_text([looking.tail]) is None, "before the step"
    waiting.train_step(bad, labels)
    with pytest.raises(TrainingError, match="the loss is nan"):
        waiting.check()
    early = trainer("cuda")
    for _ in range(LOOK_EVERY - 1):
        early.train_step(bad, labels)
    with pytest.raises(TrainingError, match="the loss is nan"):
        early.train_step(bad, labels)
