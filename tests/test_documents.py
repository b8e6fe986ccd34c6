"""README and CONTRIBUTING hold what they say: every block of code in them is run; of all documents, every
command line is one. ``docs/test_pages.py`` runs the blocks of the site's pages."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from yaml import safe_load

import privhier as ph
from privhier.cli.main import app
from privhier.errors import PrivhierError

BLOCK = re.compile(r"^```(\w*)(?: title=[^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDITION = re.compile(r"# (?P<file>\S+\.py)(?:: add a (?P<what>line|row)(?: to (?P<table>\w+))?)?\n")
NOT_OURS = {"export", "pre-commit", "mlflow", "pip", ".venv/bin/pip", "pytest", "python", "ray"}
"""Commands of other programs."""


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a document in one language."""
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


def test_every_block_has_a_language_that_is_checked_here(repository):
    for name, more in (("README.md", "yaml"), ("CONTRIBUTING.md", "toml")):
        languages = {"", "python", more}
        assert {language for language, _ in BLOCK.findall((repository / name).read_text())} <= languages
    for text in blocks(repository / "CONTRIBUTING.md", "toml"):
        assert tomllib.loads(text)["project"]["entry-points"]["privhier.defenses"]


def test_the_readme_is_short(repository):
    assert len((repository / "README.md").read_text().splitlines()) <= 80


def test_the_badges_say_what_the_package_says(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix(">=")
    wanted = {
        "badge_python.svg": f"Python: {python} or later",
        "badge_license.svg": f"License: {project['license']}",
    }
    readme = (repository / "README.md").read_text()
    for name, text in wanted.items():
        assert f"<title>{text}</title>" in (repository / "docs" / "pictures" / name).read_text()
        assert f"![{text.replace('Python: ', 'Python ')}](docs/pictures/{name})" in readme


def test_the_readmes_yaml_is_a_configuration(repository, tmp_path):
    (text,) = blocks(repository / "README.md", "yaml")
    (tmp_path / "first.yaml").write_text(text)
    assert ph.load_config(tmp_path / "first.yaml").dataset.name == "folder"


def test_the_citation_names_this_version(repository):
    cited = safe_load((repository / "CITATION.cff").read_text())
    assert cited["version"] == ph.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)
    assert f"## {ph.__version__}" in (repository / "CHANGELOG.md").read_text()


def test_the_readmes_python_runs(repository, smaller_debug, tmp_path, monkeypatch):
    """In order, in an empty folder that holds a smaller ``configs/debug.yaml``."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "configs").mkdir()
    text = smaller_debug(**{"tracking.enabled": False})
    (tmp_path / "configs" / "debug.yaml").write_text(text)
    code = "\n".join(blocks(repository / "README.md", "python"))
    assert code.count("import privhier as ph") == 1
    (tmp_path / "readme.py").write_text(code)
    command = [sys.executable, "-P", "-W", "error::UserWarning:privhier", "readme.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tradeoff.svg").is_file()


def commands(repository: Path) -> list[list[str]]:
    """Every command line of the documents, without its comment."""
    pages = [repository / name for name in ("README.md", "CONTRIBUTING.md")]
    pages += sorted((repository / "docs").glob("*.md"))
    found = []
    for page in pages:
        for text in (text for kind in ("", "sh", "console") for text in blocks(page, kind)):
            found += [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in found if words and words[0] not in NOT_OURS]


def test_every_command_line_is_one(repository):
    lines, group = commands(repository), get_command(app)
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    assert len(lines) > 30
    for words in lines:
        if words[0] == "make":
            assert words[1] in targets, words
            continue
        assert words[0] == "privhier", words
        with group.make_context("privhier", words[1:], resilient_parsing=False) as outer:
            verb, command, rest = group.resolve_command(outer, [*outer._protected_args, *outer.args])
            while hasattr(command, "resolve_command"):
                with command.make_context(verb, rest, parent=outer) as inner:
                    verb, command, rest = command.resolve_command(
                        inner, [*inner._protected_args, *inner.args]
                    )
            context = command.make_context(verb, rest, parent=outer)  # raises on a wrong option
        config = context.params.get("config")
        if config is not None and Path(config).parts[0] == "configs":
            file = repository / config
            assert file.is_file(), words
            changes = [text for text in context.params.get("overrides") or () if "=" in text]
            try:
                ph.load_config(file, changes)
            except PrivhierError as error:
                pytest.fail(f"{shlex.join(words)}: {error}")


def test_every_script_that_is_named_is_there(repository):
    named = []
    for page in sorted((repository / "docs").glob("*.md")):
        for text in (text for kind in ("sh", "console") for text in blocks(page, kind)):
            named += re.findall(r"^python (\S+\.py)\b", text, re.MULTILINE)
    assert named
    assert all((repository / name).is_file() for name in named), named


@pytest.fixture
def clone(repository, tmp_path) -> Path:
    """A checkout of its own, whose packages are imported from it."""
    for folder in ("privhier", "attacks", "datasets", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    for folder in ("attacks", "datasets"):
        (tmp_path / "privhier" / folder).symlink_to(tmp_path / folder)
    return tmp_path


def apply(block: str, root: Path) -> Path:
    """Do what a block's first line says."""
    match = ADDITION.match(block)
    assert match is not None, block
    file, text = root / match["file"], block[match.end() :]
    if match["what"] is None:
        assert not file.exists(), f"{file.name} is there already: the example needs another name"
        file.write_text(text)
    elif match["what"] == "line":
        assert len(text.splitlines()) == 1
        file.write_text(file.read_text() + text)
    else:
        before = file.read_text()
        head = re.search(rf"^{match['table']}\b.*[{{\[]\n", before, re.MULTILINE)
        assert head is not None, f"{match['table']} is not in {file.name}"
        file.write_text(before[: head.end()] + text + before[head.end() :])
    return file


def test_the_worked_examples_pass_their_contracts(repository, clone):
    made = [apply(block, clone) for block in blocks(repository / "CONTRIBUTING.md", "python")]
    new = sorted({str(file.relative_to(clone)) for file in made} - {str(f) for f in _tracked(repository)})
    assert len(new) == 4
    contracts = [str(file) for file in made if file.parent.name == "contracts"]
    assert len(contracts) == 4
    words = "mean_gap or cosine_neighbors or CosineNeighbors or named_faces or tiny_cnn or has_a_row"
    command = [sys.executable, "-m", "pytest", "-q", *contracts, "-k", words, "-rA"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    for name in ("mean_gap", "CosineNeighbors", "named_faces", "tiny_cnn"):
        assert re.search(rf"PASSED .*{name}", done.stdout), name
    ruff = Path(sys.executable).with_name("ruff")
    if ruff.exists():
        files = [clone / name for name in new]
        for arguments in (["check"], ["format", "--check"]):
            checked = subprocess.run(
                [ruff, *arguments, "--config", clone / "pyproject.toml", *files],
                capture_output=True,
                text=True,
                check=False,
            )
            assert checked.returncode == 0, checked.stdout


def _tracked(repository: Path) -> list[Path]:
    folders = ("privhier", "attacks", "datasets", "tests")
    return [path.relative_to(repository) for name in folders for path in (repository / name).rglob("*.py")]
