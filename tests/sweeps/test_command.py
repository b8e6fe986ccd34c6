"""The verb and the line it shows."""

from __future__ import annotations

import io
import re

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from privhier.cli.sweep import sweep
from privhier.errors import ConfigError
from privhier.sweeps.progress import Standing, StandingLines, show_standing

app = typer.Typer()
app.command()(sweep)


def test_bad_input_is_a_typed_error_and_writes_nothing(write_sweep, tmp_path):
    path = write_sweep(tmp_path / "s.yaml", axes=[{"key": "release.sigmaa", "values": [1]}])
    result = CliRunner().invoke(app, [str(path), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_exit_code_is_one_when_a_point_failed_and_the_summary_says_so(write_sweep, tmp_path):
    few = {"dataset.options.images": 6, "dataset.options.identities": 2}
    path = write_sweep(tmp_path / "s.yaml", axes=[{"name": "data", "variants": {"few": few}}], seeds=[0])
    result = CliRunner().invoke(app, [str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "0 of 1 points done" in result.output
    assert "failed: data=few seed=0: DataError" in result.output


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (41.4, ", about 41 s left"), (125, ", about 2 min 05 s left"), (9000, "2 h 30 min left")],
)
def test_the_line_says_how_it_stands(seconds, words):
    line = str(Standing(12, 3, 2, 1, seconds))
    assert line.startswith("12 points: 3 done, 2 running, 1 failed")
    assert line.endswith(words)


def test_a_pipe_gets_a_line_when_a_point_has_ended_and_each_silent_minute():
    written, now = [], [0.0]
    lines = StandingLines(written.append, clock=lambda: now[0])
    lines.beat()
    for done, running in ((0, 1), (0, 2), (1, 1)):
        lines(Standing(3, done, running, 0, None))
    for now[0], pause in ((45.0, 15.0), (75.0, 60.0), (80.0, 55.0)):
        assert lines.beat() == pause
    assert written == [
        "3 points: 0 done, 1 running, 0 failed",
        "3 points: 1 done, 1 running, 0 failed",
        "still: 3 points: 1 done, 1 running, 0 failed, 1 min 15 s so far",
    ]
    pipe = io.StringIO()
    with show_standing(Console(file=pipe)) as show:
        show(Standing(3, 1, 1, 0, None))
    assert pipe.getvalue() == "3 points: 1 done, 1 running, 0 failed\n"


def test_a_terminal_gets_the_line():
    screen = io.StringIO()
    with show_standing(Console(file=screen, force_terminal=True, width=120)) as show:
        show(Standing(12, 3, 2, 1, 60))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "12 points: 3 done, 2 running, 1 failed, about 1 min 00 s left" in plain
