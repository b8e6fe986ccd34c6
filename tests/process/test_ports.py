"""Ports for servers that begin elsewhere: while two processes test, nobody else may be given one."""

from __future__ import annotations

import runpy
import socket
from pathlib import Path

import pytest

PORTS = runpy.run_path(str(Path(__file__).with_name("ports.py")))
free_port = PORTS["free_port"]


def test_it_is_none_that_the_system_or_another_worker_gives_away(monkeypatch):
    given = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        given.append({free_port() for _ in range(300)})
    assert not given[0] & given[1]
    assert given[0] | given[1] <= set(PORTS["CHOSEN_BY_NOBODY"])
    with socket.socket() as system:
        system.bind(("127.0.0.1", 0))
        assert system.getsockname()[1] not in PORTS["CHOSEN_BY_NOBODY"]


def test_one_that_is_taken_is_passed_over(monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        number = taken.getsockname()[1]
        monkeypatch.setitem(free_port.__globals__, "EACH", 1)
        monkeypatch.setitem(free_port.__globals__, "CHOSEN_BY_NOBODY", range(number, number + 1))
        with pytest.raises(RuntimeError, match="no free port"):
            free_port()
