"""Where an epoch's time goes: every processor second once, under the name of what it was for."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from privhier.cli.main import main
from privhier.training.profiling import OTHER, Profiling, shares, table

CPU = torch.device("cpu")
FEW = ["schedule.pretrain_epochs=2", "schedule.joint_epochs=1", "schedule.cloud_epochs=2"]
TINY = ["dataset.options.images=160", "dataset.options.identities=80", "dataset.image_size=24"]


def event(name: str, micro: float, parent: SimpleNamespace | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        name=name, self_cpu_time_total=micro, cpu_parent=parent, is_async=False, device_type="DeviceType.CPU"
    )


def test_own_time_counts_once_under_the_innermost_span_and_convolutions_by_themselves():
    loop = event("privhier: loop", 1e6)
    inner = event("privhier: defense", 2e6, event("some call", 0, loop))
    work = [event("aten::mm", 3e6, inner), event("aten::mkldnn_convolution", 5e6, inner)]
    work += [event("aten::convolution_backward", 7e6, loop), event("aten::add", 11e6)]
    assert shares([loop, inner, *work]) == {
        OTHER: 11.0,
        "convolution backward": 7.0,
        "convolution forward": 5.0,
        "defense": 5.0,
        "loop": 1.0,
    }


def test_the_table_adds_up():
    text = table({"a": 3.0, "b": 1.0}, "an epoch")
    assert "| a | 3.0000 | 75.0 % |" in text
    assert "| together | 4.0000 | 100 % |" in text


@pytest.mark.parametrize(
    ("phases", "chosen"),
    [
        ([("pretrain", 0), ("pretrain", 1), ("pretrain", 2), ("test", 0)], {("pretrain", 1), ("test", 0)}),
        ([("pretrain", 4), ("joint", 0)], {("pretrain", 4), ("joint", 0)}),
        ([("pretrain", 4), ("pretrain", 5)], {("pretrain", 5)}),
    ],
)
def test_the_second_epoch_is_profiled_where_there_is_one(tmp_path, phases, chosen):
    assert Profiling(tmp_path, phases, CPU)._chosen == chosen


def test_a_training_is_profiled_phase_by_phase_and_trains_the_same(repository, tmp_path, capsys):
    config = str(repository / "configs" / "debug.yaml")
    for name, more in (("plain", []), ("profiled", ["--profile"])):
        command = ["train", config, *FEW, *TINY, "runtime.threads=1", "--out", str(tmp_path / name), *more]
        with pytest.raises(SystemExit, match="0"):
            main(command)
    assert "profile/pretrain.md" in capsys.readouterr().out
    folder = tmp_path / "profiled" / "profile"
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {
        "pretrain", "joint", "release", "cloud", "test",
    }  # fmt: skip
    text = (folder / "pretrain.md").read_text()
    for what in ("indexing", "augmentation", "normalization", "convolution forward", "convolution backward",
                 "exits", "defense", "optimizer", "release and noise", "metrics", "checkpoint"):  # fmt: skip
        assert re.search(rf"^\| {what} \| ", text, re.MULTILINE), what
    trace = json.loads(gzip.decompress((folder / "joint.trace.json.gz").read_bytes()))
    assert any(found.get("name") == "privhier: uplink" for found in trace["traceEvents"])
    files = [tmp_path / name / "edge.safetensors" for name in ("plain", "profiled")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not Path(tmp_path / "plain" / "profile").exists()
