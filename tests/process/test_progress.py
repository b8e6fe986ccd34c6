"""Progress where there is neither terminal nor notebook: lines."""

from __future__ import annotations

import io
import threading
import time
from contextlib import suppress
from itertools import count

from rich.console import Console

from privhier.process.heartbeat import SILENCE, heartbeat
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


def test_a_long_attack_says_each_minute_that_it_goes_on():
    written, now = [], [0.0]
    report = Lines(written.append, clock=lambda: now[0])
    assert report.beat() == SILENCE
    now[0] = 90.0
    assert report.beat() == SILENCE, "nothing was reported yet: there is nothing to name"
    report("attack: decoder on reconstruction (curious_cloud)", 0, 1)
    for now[0], pause in ((100.0, 50.0), (150.0, 60.0), (211.0, 60.0)):
        assert report.beat() == pause
    report("attack: curious_cloud", 1, 1)
    now[0] = 300.0
    report.beat()
    assert written == [
        "0:01:30 attack: decoder on reconstruction (curious_cloud) 0/1",
        "0:02:30 still: decoder on reconstruction (curious_cloud), 1:00",
        "0:03:31 still: decoder on reconstruction (curious_cloud), 2:01",
        "0:03:31 attack: curious_cloud 1/1",
        "0:05:00 still: what follows attack: curious_cloud, 1:29",
    ]


def beating():
    return [thread for thread in threading.enumerate() if thread.name == "privhier-heartbeat"]


def test_the_heartbeat_is_for_files_alone_and_ends_with_the_block(monkeypatch):
    monkeypatch.setattr("privhier.process.progress._PATIENCE", 0.0)
    monkeypatch.setattr("privhier.process.heartbeat.SILENCE", 0.02)
    stream = io.StringIO()
    with suppress(KeyError), shown_progress(Console(file=stream), lines=True) as report:
        report("attack: decoder on reconstruction", 0, 1)
        assert len(beating()) == 1
        until = time.monotonic() + 20
        while "still: decoder on reconstruction, 0:00" not in stream.getvalue():
            assert time.monotonic() < until
            time.sleep(0.01)
        raise KeyError  # however the block ends
    assert not beating()
    said = stream.getvalue()
    time.sleep(0.1)
    assert stream.getvalue() == said, "nothing is written after the end"
    with shown_progress(Console(file=io.StringIO(), force_terminal=True)):
        assert not beating()
    with shown_progress(Console(file=stream)):
        assert not beating()


def test_a_heart_that_cannot_write_stops_and_lets_the_block_go_on():
    def fails():
        raise BrokenPipeError

    with heartbeat(fails):
        until = time.monotonic() + 20
        while beating():
            assert time.monotonic() < until
            time.sleep(0.01)
