"""The tables of mutants fit the source and the tests, and their runner tells dead from alive."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("privhier_tests_mutants", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_old_text_stands_in_the_source_exactly_once(runner, repository):
    mutants = runner.read_tables()
    assert len(mutants) >= 18 + 20
    for mutant in mutants:
        assert runner.mutated(mutant, repository) != (repository / mutant.file).read_text()


def test_every_named_test_is_there(runner, repository):
    for test in {test for mutant in runner.read_tables() for test in mutant.tests}:
        path, _, name = test.partition("::")
        text = (repository / path).read_text()
        assert f"def {name.partition('[')[0]}(" in text if name else "def test_" in text, test


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A checkout of one function and its tests."""
    for name in ("privhier", "attacks", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n'
    )
    (tmp_path / "privhier" / "noise.py").write_text("def scale(sigma):\n    return 2 * sigma\n")
    (tmp_path / "attacks" / "view.py").write_text("from privhier.noise import scale\n\nDOUBLE = scale(1)\n")
    (tmp_path / "tests" / "test_noise.py").write_text(
        "import pytest\n"
        "from privhier.attacks.view import DOUBLE\n"
        "from privhier.noise import scale\n\n\n"
        "@pytest.fixture\ndef made():\n    return 1 / scale(1)\n\n\n"
        "def test_right():\n    assert scale(3) == 6\n    assert DOUBLE == 2\n\n\n"
        "def test_weak():\n    assert scale(0) == 0\n\n\n"
        "def test_made(made):\n    assert made\n"
    )
    return tmp_path


def toy_mutant(runner, new="sigma", test="test_right", old="2 * sigma", file="privhier/noise.py"):
    return runner.Mutant("m", file, old, new, (f"tests/test_noise.py::{test}",))


def test_the_dead_the_living_and_the_unknown(runner, toy, capsys):
    mutants = [
        toy_mutant(runner),
        toy_mutant(runner, old="scale(1)", new="scale(2)", file="attacks/view.py"),
        toy_mutant(runner, test="test_weak"),
        toy_mutant(runner, new="[][0]", test="test_weak"),  # attacks/view.py can no longer be imported
        toy_mutant(runner, new="2 * sigma if sigma != 1 else 0", test="test_made"),
    ]
    assert runner.campaign(mutants, toy) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["killed", "killed", "SURVIVED", "UNKNOWN", "UNKNOWN"]
    assert "by tests/test_noise.py::test_right" in lines[1]
    assert "pytest ended with" in lines[4]
    assert "a fixture could not be made" in lines[5]
    assert lines[-1].startswith("5 mutants, 2 killed, 3 alive or unknown")


def test_when_all_die_the_exit_code_is_0(runner, toy):
    assert runner.campaign([toy_mutant(runner)], toy) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": "3 * sigma"}, "stands 0 times"),
        ({"old": "s"}, "stands 3 times"),
        ({"new": "2 *"}, "invalid syntax"),
        ({"test": "test_missing"}, "unmutated: pytest ended with 4"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(runner, toy, change, message):
    with pytest.raises(runner.TableError, match=message):
        runner.campaign([toy_mutant(runner, **change)], toy)


def test_a_test_that_fails_on_the_source_itself_is_refused(runner, toy):
    path = toy / "privhier" / "noise.py"
    path.write_text(path.read_text().replace("2", "5"))
    with pytest.raises(runner.TableError, match=r"unmutated: tests/test_noise\.py::test_right"):
        runner.campaign([toy_mutant(runner, old="5 * sigma")], toy)


def test_names_are_unique(runner, tmp_path):
    entry = '[[mutant]]\nname = "a"\nfile = "f"\nold = "o"\nnew = "n"\ntests = ["t"]\n'
    for name in runner.TABLES:
        (tmp_path / name).write_text(entry)
    with pytest.raises(runner.TableError, match="named twice"):
        runner.read_tables(tmp_path)
