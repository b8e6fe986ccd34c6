"""SIGTERM is Ctrl-C: the same words, the same exit code, the state kept, on every verb."""

from __future__ import annotations

import os
import runpy
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.core import TyperCommand

from privhier.cli import main as cli
from privhier.process.stopping import hear_sigterm, sigterm_interrupts

free_port = runpy.run_path(str(Path(__file__).parents[1] / "process" / "ports.py"))["free_port"]
FOREVER = ["schedule.pretrain_epochs=5000", "runtime.threads=1"]


def stopped(
    arguments: list[str],
    ready: Callable[[], bool],
    number: signal.Signals = signal.SIGTERM,
    group: bool = False,
) -> tuple[int, str]:
    """Start the command, signal it once it is ready; returns exit code and what it wrote."""
    command = [sys.executable, "-P", "-m", "privhier.cli.start", *arguments]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a test run in the background ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        deadline = time.monotonic() + 240
        while not ready():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, process.kill()
            time.sleep(0.05)
        (os.killpg if group else os.kill)(process.pid, number)
        text, _ = process.communicate(timeout=240)
    return process.returncode, " ".join(text.split())


def test_it_interrupts_the_main_thread_and_repeats_at_once_are_one() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_interrupts():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the group's, after the parent's: not again while we close
    assert signal.getsignal(signal.SIGTERM) is before
    seen: list[object] = []

    def elsewhere() -> None:
        with sigterm_interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_later_one_interrupts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGTERM)
    try:
        hear_sigterm()
        for moment in (0.0, 10.0):
            now[0] = moment
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "defenses"],
        ["data", "check", "x.yaml"],
        ["report", "runs/a b"],
        ["join", "e", "c", "--out", "o"],
        ["certs", "c"],
        ["ui"],
    ],
)
def test_verbs_without_a_resume_are_started_again(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    number: signal.Signals,
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(TyperCommand, "invoke", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Ctrl-C" in said
    assert "Start it again: privhier" in said
    assert arguments[0] in said


def test_it_is_answered_while_the_program_is_loaded(tmp_path: Path) -> None:
    """Before torch, before the command line itself: a module of that name takes the time it takes."""
    started = tmp_path / "started"
    (tmp_path / "typer.py").write_text(
        f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(100)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "privhier.cli.start", "run", "a b.yaml", "--out", "there"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        while not started.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.terminate()
        _, said = process.communicate(timeout=240)
    assert process.returncode == 2
    assert said.startswith("error: Ctrl-C: 'interrupted'")
    assert "Start it again: privhier run 'a b.yaml' --out there" in said


def test_a_cloud_says_how_to_go_on(repository: Path, tmp_path: Path) -> None:
    out, port = tmp_path / "cloud", free_port()
    arguments = ["cloud", str(repository / "configs/debug.yaml"), "--plain", "--out", str(out)]
    code, said = stopped([*arguments, "--listen", f"127.0.0.1:{port}"], (out / "shared.yaml").exists)
    assert code == 2
    assert f"--out {out} --resume" in said


@pytest.mark.slow
def test_an_edge_says_how_to_go_on(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "edge"
    arguments = ["edge", str(repository / "configs/debug.yaml"), *FOREVER, "--plain", "--out", str(out)]
    ready = (out / "checkpoint.pt").exists
    code, said = stopped([*arguments, "--cloud", f"127.0.0.1:{free_port()}"], ready)
    assert code == 2
    assert f"--out {out} --resume" in said
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_a_tracked_run_is_marked_as_killed(
    repository: Path, tmp_path: Path, empty_store: Path, group: bool
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    out = tmp_path / "run"
    arguments = ["run", str(repository / "configs/debug.yaml"), *FOREVER, "--out", str(out)]
    code, said = stopped(arguments, (out / "checkpoint.pt").exists, group=group)
    assert code == 2
    assert f"--out {out} --resume" in said
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select status from runs").fetchall() == [("KILLED",)]


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_a_sweep_and_its_workers_end(
    repository: Path, tmp_path: Path, empty_store: Path, group: bool
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    out, sweep = tmp_path / "sweep", tmp_path / "s.yaml"
    sweep.write_text(
        f"name: s\nbase: {repository / 'configs/debug.yaml'}\n"
        "overrides: {schedule.pretrain_epochs: 5000, runtime.threads: 1}\n"
        "axes: [{key: release.sigma, values: [0.3, 0.5]}]\n"
    )

    def ready() -> bool:
        return (
            len(list(out.glob("points/*/checkpoint.pt"))) + len(list(out.glob("shared/**/checkpoint.pt")))
            >= 2
        )

    code, said = stopped(["sweep", str(sweep), "--workers", "2", "--out", str(out)], ready, group=group)
    assert code == 2
    assert f"Go on with: privhier sweep {sweep} --workers 2 --out {out}" in said
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select status, count(*) from runs group by 1").fetchall() == [("KILLED", 3)]
    assert '"running"' not in (out / "points.json").read_text()
