"""Progress where there is neither terminal nor notebook: lines."""

from __future__ import annotations

import io
from itertools import count

from rich.console import Console

from privhier.process.progress import BATCHES, Lines, shown_progress


def test_work_that_is_over_at_once_writes_nothing():
    written = []
    report = Lines(written.append, clock=iter([0.0, 0.1, 4.9]).__next__)
    report("draw", 1, 2)
    report("draw", 2, 2)
    assert written == []


def test_every_attack_has_a_line_and_batches_only_one_every_half_minute():
    written = []
    clock = count(step=10)
    report = Lines(written.append, clock=lambda: float(next(clock)))
    report("train: epochs", 0, 2)  # at 10 seconds
    for number in range(4):  # at 20, 30, 40 and 50
        report(f"pretrain epoch 1{BATCHES}", number, 9)
    for number, name in enumerate(("mlp", "cnn")):  # at 60 and 70
        report(f"attack: {name} on male", number, 2)
    assert written == [
        "0:00:10 train: epochs 0/2",
        "0:00:40 pretrain epoch 1: batches 2/9, about 0:01:10 left",
        "0:01:00 attack: mlp on male 0/2",
        "0:01:10 attack: cnn on male 1/2, about 0:00:10 left",
    ]


def test_a_file_gets_lines_only_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr("privhier.process.progress._PATIENCE", 0.0)
    stream = io.StringIO()
    with shown_progress(Console(file=stream), lines=True) as report:
        report("train: epochs", 1, 2)
    assert stream.getvalue() == "0:00:00 train: epochs 1/2\n"
    with shown_progress(Console(file=stream)) as report:
        assert report is None
