"""The command line: verbs, flags, exit codes and messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import privhier
from privhier.cli.main import app, main

VERBS = {
    "run": {"--out", "--resume", "--profile"},
    "train": {"--out", "--resume", "--profile"},
    "attack": {"--add"},
    "audit": {"--draws", "--canaries", "--seed", "--fail-above", "--check-only"},
    "report": set(),
    "ui": {"--store", "--port"},
    "sweep": {"--engine", "--workers", "--device-share", "--out"},
    "list": set(),
    "config": {"--defaults"},
    "new": {"--root", "--option", "--task", "--sensitive", "--out"},
    "compare": {"--csv"},
    "cloud": {
        "--listen",
        "--certs",
        "--plain",
        "--out",
        "--resume",
        "--edges",
        "--queue",
        "--also",
        "--linger",
        "--threads",
        "--records",
        "--sync",
        "--no-sync",
    },
    "edge": {"--cloud", "--certs", "--plain", "--out", "--resume", "--shard"},
    "shared": {"--out"},
    "join": set(),
    "certs": {"--host", "--edges", "--days"},
    "plan": {
        "--bitrate",
        "--latency",
        "--tls",
        "--plain",
        "--wire",
        "--edge-device",
        "--cloud-device",
        "--cloud-speed",
        "--edge-threads",
        "--cloud-threads",
        "--together",
        "--apart",
        "--memory",
        "--frontier",
        "--max-leakage",
        "--cut",
        "--records",
        "--steps",
        "--scratch",
        "--jpeg-quality",
        "--out",
    },
    "data check": set(),
    "data cache": set(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_flags_are_frozen_and_help_has_an_example(verb):
    page = CliRunner().invoke(app, [*verb.split(), "--help"], env={"COLUMNS": "200"}).output
    flags = set(re.findall(r"(?<![\w-])--[a-z-]+", page)) - {
        "--help",
        "--no-out",
        "--no-resume",
        "--no-plain",
        "--no-profile",
    }
    example = page[page.index("Example:") :]
    assert f"privhier {verb}" in example
    assert flags - set(re.findall(r"--[a-z-]+", example)) <= VERBS[verb]
    assert VERBS[verb] <= flags


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == privhier.__version__


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("backbones", "small_cnn"),
        ("datasets", "synthetic"),
        ("defenses", "max_entropy"),
        ("attacks", "decoder"),
    ],
)
def test_list(kind, name):
    lines = CliRunner().invoke(app, ["list", kind]).output.splitlines()
    line = next(line for line in lines if line.startswith(name + " "))
    assert len(line.split()) > 3, "every entry says what it is"


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    message = " ".join(" ".join(lines).split())
    assert message.startswith("error: ")
    return message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.backbon=x", ["model.backbon", "not a known key", "backbone"]),
        ("seed=many", ["seed", "many", "integer"]),
        ("model.backbone=resnet81", ["model.backbone", "resnet81", "resnet18"]),
        ("model.cut=stage9", ["model.cut", "stage9", "stage1"]),
        ("defense.name=gradient_revrsal", ["defense.name", "gradient_reversal"]),
        ("attacks.attribute=[logistic]", ["attacks.attribute", "logistic_regression"]),
        ("dataset.name=utkfaces", ["dataset.name", "utkface"]),
        ("dataset.sensitive=[man]", ["man", "male"]),
        ("dataset.sensitive=['age>1000']", ["age>1000", "class"]),
        ("dataset.sensitive=['smiling==0']", ["smiling, smiling==0", "complement", "another secret"]),
        ("dataset.options.images=4", ["images"]),
        ("release.target_epsilon=0", ["release.target_epsilon", "greater than 0"]),
        ("runtime.precision=bfloat16", ["runtime.precision", "CUDA", "AVX512-BF16"]),
    ],
)
def test_bad_input_names_key_value_rule_and_remedy_and_writes_nothing(
    capsys, repository, tmp_path, monkeypatch, override, words
):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True})
    out = tmp_path / "out"
    message = refused(capsys, "run", str(repository / "configs/debug.yaml"), override, "--out", str(out))
    for word in words:
        assert word in message
    assert not out.exists()


def test_missing_data_root_is_named_with_the_variable(capsys, repository, tmp_path, monkeypatch):
    monkeypatch.delenv("PRIVHIER_DATA", raising=False)
    message = refused(capsys, "data", "check", str(repository / "configs/celeba_smiling_gender.yaml"))
    assert "PRIVHIER_DATA" in message
    assert "dataset.root" in message


def test_fewer_groups_than_splits(capsys, repository, tmp_path):
    few = ["dataset.options.images=6", "dataset.options.identities=2"]
    message = refused(
        capsys, "run", str(repository / "configs/debug.yaml"), *few, "--out", str(tmp_path / "out")
    )
    assert "split" in message or "images" in message
    assert not (tmp_path / "out").exists()


def test_arguments_are_utf8(capsys, repository, tmp_path):
    out = tmp_path / "caf\udce9"
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(repository / "configs/debug.yaml"), "--out", str(out)])
    assert stopped.value.code == 2
    assert "bytes that are not UTF-8" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_taken_and_unwritable_output(capsys, repository, tmp_path):
    config = str(repository / "configs/debug.yaml")
    (tmp_path / "mine.txt").write_text("keep me")
    assert "--resume" in refused(capsys, "run", config, "--out", str(tmp_path))
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    assert "cannot be written" in refused(capsys, "run", config, "--out", "/proc/privhier/x")


def test_attack_and_report_need_a_run(capsys, tmp_path):
    assert "not a run folder" in refused(capsys, "attack", str(tmp_path))
    assert "not a run folder" in refused(capsys, "report", str(tmp_path))


def test_unknown_kind_to_list(capsys):
    assert "backbones, datasets, defenses, attacks" in refused(capsys, "list", "losses")


def test_data_check_and_cache_on_the_synthetic_set(repository):
    config = str(repository / "configs/debug.yaml")
    checked = CliRunner().invoke(app, ["data", "check", config]).output
    assert "400" in checked
    assert "smiling" in checked
    assert "400 images" in CliRunner().invoke(app, ["data", "cache", config]).output


def hear_ctrl_c() -> None:
    """A test run in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_state_and_prints_how_to_go_on(repository, tmp_path, number):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "privhier.cli.main", "run", str(repository / "configs/debug.yaml")]
    command += ["schedule.pretrain_epochs=500", "tracking.enabled=false", "--out", str(out)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=dict(os.environ), preexec_fn=hear_ctrl_c
    ) as process:
        deadline = time.monotonic() + 240
        while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        _, message = process.communicate(timeout=240)
    message = " ".join(message.split())
    assert process.returncode == 2
    assert "Ctrl-C" in message
    assert f"--out {out} --resume" in message
    assert (out / "checkpoint.pt").exists()
    assert not list(Path(out).rglob("*.tmp"))
