"""The rooms of the command line: nothing heavy before a verb runs, nothing declared twice."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter

import pytest
from typer.main import get_command

from privhier.cli.main import app

HEAVY = {"torch", "numpy", "mlflow", "grpc", "cryptography", "omegaconf", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["plan", "--help"]])
def test_help_and_version_load_nothing_heavy(arguments):
    code = (
        "import sys\nfrom privhier.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.strip() == "[]"


def test_nothing_is_declared_by_two_files(repository):
    names = Counter()
    for path in (repository / "privhier" / "cli").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names[node.name] += 1
            elif isinstance(node, ast.Assign):
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    # Each file says in the same words what of it is kept; main is where the command and its start begin.
    assert {name for name, count in names.items() if count > 1} == {"_KEPT", "main"}


def test_every_verb_has_its_example():
    def verbs(group, before):
        for name, verb in group.commands.items():
            if hasattr(verb, "commands"):
                yield from verbs(verb, f"{before} {name}")
            else:
                yield f"{before} {name}", verb.epilog

    found = dict(verbs(get_command(app), "privhier"))
    assert len(found) == 19
    for name, epilog in found.items():
        assert epilog.startswith(f"Example: {name} ")
