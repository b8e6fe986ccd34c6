"""The pages under ``docs/`` hold what they say: every block of code is run, or its words are checked."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from PIL import Image
from yaml import safe_load

import privhier as ph
from privhier.cli.main import main
from privhier.evaluation.schema import json_schema
from privhier.sweeps.spec import load_sweep

HERE = Path(__file__).parent
PAGES = sorted((HERE.parents[1] / "docs").glob("*.md"))
MARKS = SimpleNamespace(**runpy.run_path(str(HERE / "blocks.py")))
SLOW = {"mlflow", "processes", "python", "sweeps"}
"""Pages whose blocks take more than a few seconds."""
RUNNING = {"quickstart", "faces", "plugins"} | SLOW
"""Pages with blocks that are run; the others hold files and commands that are checked only."""


def page(name: str) -> Path:
    return next(path for path in PAGES if path.stem == name)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_is_one_that_is_checked_here(path):
    found = MARKS.blocks(path)
    assert 2 * len(found) == MARKS.fences(path), "a fence that is not understood: indented, or badly marked"
    assert {block.language for block in found} <= MARKS.LANGUAGES
    for block in found:
        if block.language in ("csv", "toml", "yaml"):
            assert block.file, "what is no command has a file's name as its title"
    runs = any(block.language in ("sh", "python") for block in found)
    assert runs == (path.stem in RUNNING)


@pytest.fixture
def folder(tmp_path, monkeypatch, smaller_debug, repository):
    """An empty folder with a smaller ``configs/debug.yaml``, in which the blocks run."""
    for name in ("MLFLOW_TRACKING_URI", "PRIVHIER_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRIVHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "debug.yaml").write_text(smaller_debug(**{"tracking.enabled": False}))
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_configuration_of_a_page_is_one(path, folder):
    for block in MARKS.blocks(path):
        if block.language != "yaml":
            continue
        (folder / block.file).write_text(block.text)
        if "axes" in safe_load(block.text):
            assert load_sweep(folder / block.file).points()
        else:
            ph.load_config(folder / block.file)


def privhier(line: str) -> None:
    """One command line, in this process."""
    program, *words = shlex.split(line, comments=True)
    assert program == "privhier", line
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None), line


def at_once(lines: list[str]) -> None:
    """Command lines in processes of their own; each ends by itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "privhier.cli.main", *shlex.split(line.replace("50051", port))[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in lines
    ]
    for process, line in zip(running, lines, strict=True):
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, f"{line}\n{said}"


def play(path: Path, folder: Path) -> None:
    """Do what a page says, from top to bottom; its Python is one script, run last."""
    script = []
    for block in MARKS.blocks(path):
        lines = [line for line in block.text.splitlines() if line.strip()]
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
        elif block.title == MARKS.RUN_AT_ONCE:
            at_once(lines)
        elif block.language == "sh":
            for line in lines:
                privhier(line)
        elif block.language == "python":
            script.append(block.text)
    if script:
        (folder / "page.py").write_text("\n".join(script))
        command = [sys.executable, "-P", "-W", "error::UserWarning:privhier", "page.py"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_quickstart(folder):
    play(page("quickstart"), folder)
    for name in ("tiny", "tiny-4"):
        result = folder / "runs" / name / "result.json"
        jsonschema.Draft202012Validator(json_schema()).validate(json.loads(result.read_text()))
        assert (result.parent / "report.html").is_file()


def test_your_own_faces(folder, capsys):
    rng = np.random.default_rng(0)
    (folder / "people").mkdir()
    for number in range(1, 10):
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "people" / f"{number:04}.png")
    play(page("faces"), folder)
    said = capsys.readouterr().out
    assert "9 labelled images of 5 people" in said
    assert ph.load_config(folder / "people.yaml").dataset.name == "folder"


def test_the_plug_in_is_a_package_that_works(folder):
    play(page("plugins"), folder)
    site = folder / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    pip += ["--target", str(site), "."]
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    own = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shrink.py"]
    said = []
    for command in (pip, own):
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert "2 passed" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_the_longer_pages(name, folder, smaller_debug):
    if name == "mlflow":
        (folder / "configs" / "debug.yaml").write_text(smaller_debug())
    play(page(name), folder)
    made = {
        "mlflow": "runs/mlflow.db",
        "processes": "runs/both/report.html",
        "python": "tradeoff.svg",
        "sweeps": "runs/front/report.html",
    }
    assert (folder / made[name]).is_file()


def test_an_index_of_words_has_each_once(repository):
    words = re.findall(r"^\| ([^|]+) \|", page("glossary").read_text(), re.M)
    assert len(words) == len(set(words)) > 30
