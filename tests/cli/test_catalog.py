"""``privhier list`` prints what the classes say, letter by letter; ``data check`` keeps no problem back."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from privhier.attacks.base import Attack, AttackResult, attacks
from privhier.cli.console import _out as output
from privhier.cli.console import console
from privhier.cli.main import app, main
from privhier.config import load_config
from privhier.config.choices import option
from privhier.process.progress import shown_progress

TEXTS = ("``code`` and `names`", "[red]no color[/red]", "(B, *shape)", "[a, b]", "\\[escaped]", ":smile:")


@dataclass(frozen=True)
class Spelled(Attack):
    r"""``code`` and `names`, [red]no color[/red], (B, *shape), \[escaped], :smile:.

    Attributes:
        target: Attribute under attack.
        sizes: One of [a, b], or `[/]` of them.
    """

    kind: ClassVar[str] = "attribute"
    sizes: tuple[int, ...] = option((1, 2), low=1)

    def run(self, view: object) -> AttackResult:
        """Not run."""
        raise NotImplementedError


@pytest.fixture
def spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    attacks.names()
    monkeypatch.setattr(attacks, "_entries", dict(attacks._entries))
    attacks.register("spelled")(Spelled)


def printed(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_brackets_backticks_and_colons_are_printed_as_they_are(spelled):
    one, table = printed("list", "attacks", "spelled"), printed("list", "attacks")
    for text in TEXTS:
        assert text in one, text
        if text != "[a, b]":
            assert text in table, text
    assert "`[/]` of them" in one
    assert "[1, 2]" in one, "defaults are lists as YAML has them"


def test_what_is_printed_besides_is_no_markup_either():
    said = io.StringIO()
    for made in (console, output):
        assert made._emoji is False
    terminal = Console(file=said, force_terminal=True, color_system=None, emoji=False, width=200)
    with shown_progress(terminal) as report:
        assert report is not None
        report("waiting for another process in runs/[red]a[/] :smile:", 0, 1)
        time.sleep(0.3)  # the bar is drawn ten times a second
    assert "runs/[red]a[/] :smile:" in said.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six pictures; one is no picture, one has no row, one row has no picture, one lacks a label."""
    monkeypatch.setenv("PRIVHIER_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    root = tmp_path / "faces"
    root.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(root / f"{number}.png")
    (root / "1.png").write_text("no picture")
    rows = [f"{number}.png,{number % 2},{number % 3 % 2}" for number in range(5)]
    rows[4] = "4.png,,1"
    (root / "labels.csv").write_text("\n".join(["image,a,b", *rows, "gone.png,1,1"]) + "\n")
    return root


def config(root: Path, **changes: object) -> Path:
    text = {
        "name": "folder",
        "root": str(root),
        "image_size": 24,
        "task": ["a"],
        "sensitive": ["b"],
    } | changes
    path = root.parent / "check.yaml"
    path.write_text("dataset:\n" + "".join(f"  {key}: {value}\n" for key, value in text.items()))
    return path


LISTED = ("1.png", "5.png", "gone.png", "4.png: missing label: a")


def test_the_problems_are_listed(folder):
    said = printed("data", "check", str(config(folder)))
    assert all(text in said for text in LISTED), said
    assert "problems: 4" in said


@pytest.mark.parametrize(
    "changes", [{"task": "[c]"}, {"sensitive": "['a>7']"}, {"task": "['bin(a, 3, 1)']"}, {"task": "['a==0']"}]
)
def test_they_are_listed_where_an_attribute_cannot_be_had(folder, changes):
    said = printed("data", "check", str(config(folder, **changes)))
    assert "refused" in said
    assert "1.png" in said
    assert "gone.png" in said
    assert "problems:" in said


def test_they_are_listed_where_nothing_is_left(folder, capsys):
    for path in folder.glob("*.png"):
        path.write_text("no picture")
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(config(folder))])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    for text in ("no usable image is left", "0.png", "gone.png", "5.png"):
        assert text in said


def test_a_first_configuration_has_the_task_and_the_secret_that_were_asked_for(tmp_path):
    path = tmp_path / "first.yaml"
    said = printed("new", "synthetic", "--task", "glasses", "--sensitive", "male", "--out", str(path))
    assert "task: glasses; secret: male" in said
    assert "--task" not in said
    chosen = load_config(path)
    assert (chosen.dataset.task, chosen.dataset.sensitive) == (["glasses"], ["male"])
    assert "to choose otherwise: --task NAME, --sensitive NAME" in printed(
        "new", "synthetic", "--task", "glasses", "--out", str(tmp_path / "second.yaml")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["folder"], "--root: None - nothing says where folder lies. Set --root to its folder"),
        (["folder", "--root", "nowhere"], "Point --root at"),
        (["synthetic", "--task", "hats"], "--task: 'hats' - synthetic has no column 'hats'"),
        (["synthetic", "--option", "image=4"], "--option image: 4 - is not an option of synthetic"),
    ],
)
def test_what_a_first_configuration_lacks_is_said_in_this_verbs_words(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["new", *words])
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert "dataset." not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("dataset.options.csv", ["default labels.csv", "relative to the root", "An option of: folder."]),
        ("dataset.options", ["privhier list datasets NAME"]),
        ("defense.options.weight", ["gradient_reversal", "privhier list defenses NAME"]),
        ("defense.options", ["privhier list defenses NAME"]),
        ("attacks.options.epochs", ["mlp", "decoder", "privhier list attacks NAME"]),
        ("attacks.reconstruction.options.epochs", ["decoder", "privhier list attacks NAME"]),
        ("attacks.membership.0.options.shadows", ["lira", "privhier list attacks NAME"]),
    ],
)
def test_an_option_is_explained_with_the_names_that_have_it(path, said):
    text = printed("config", path)
    for one in said:
        assert one in text, text
    assert "mlp" not in text or ".reconstruction." not in path


def test_an_option_that_nothing_has_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["config", "dataset.options.csvv"])
    error = " ".join(capsys.readouterr().err.split())
    assert "none of the datasets has an option 'csvv'. Did you mean csv?" in error
    assert "privhier list datasets NAME" in error
    with pytest.raises(SystemExit, match="2"):
        main(["config", "release.options.csv"])
    assert "is not a known key" in capsys.readouterr().err
