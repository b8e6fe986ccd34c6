"""The house rules that a machine can check: rooms, floors, circles, packages, sizes.

Each rule is a function over a tree of sources, so that a test of the test can break it on purpose.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = [
    ["errors"],
    ["registry", "seeding", "storage", "process"],
    ["config"],
    ["datasets", "models", "metrics", "figures"],
    ["privacy", "defenses"],
    ["uplink"],
    ["training", "evaluation"],
    ["attacks", "tracking", "planner"],
    ["assessment", "audit", "report"],
    ["session"],
    ["distributed", "sweeps"],
    ["api"],
    ["cli"],
]
"""Rooms from the ground up; a room imports only from floors below its own."""
FOLDERS = {"privhier": "privhier", "attacks": "privhier.attacks", "datasets": "privhier.datasets"}
LOOSE = 6
"""Files at the top of ``privhier/``, at most."""
LONGEST, MEDIAN = 400, 150
"""Lines of a file, and of the file in the middle."""
FUNCTION, PARAMETERS = 80, 10
"""Lines of code of a function, and its parameters; verbs of the command line may have more of these."""


def sources(root: Path) -> dict[str, Path]:
    """Every module of the three packages, by its dotted name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join([package, *parts])] = path
    return found


def imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, wherever in it; ``from package import module`` included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            named = {f"{node.module}.{alias.name}" for alias in node.names} & set(modules)
            whole = {alias.name for alias in node.names if f"{node.module}.{alias.name}" not in modules}
            found |= named | ({node.module} if whole else set())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name == "privhier" or name.startswith("privhier.")}


def graph(root: Path) -> dict[str, set[str]]:
    """Who imports whom."""
    modules = sources(root)
    return {name: imports(path, modules) for name, path in modules.items()}


def room(module: str) -> str:
    """The room of a module; the package's own face is the front door, ``api``."""
    return [*module.split("."), "api"][1]


def relative_imports(root: Path) -> list[str]:
    """Imports with dots hide which room they mean."""
    return [
        f"{name}: line {node.lineno}"
        for name, path in sources(root).items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def homeless(root: Path) -> list[str]:
    """Files in no declared room."""
    declared = {name for floor in FLOORS for name in floor}
    return [name for name in sources(root) if room(name) not in declared]


def climbing(root: Path) -> list[str]:
    """Imports from the own floor's other rooms, or from a floor above."""
    floor = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    first = "privhier.process.openmp"  # before torch is loaded, whichever part is imported first
    return [
        f"{name} imports {target}"
        for name, targets in graph(root).items()
        for target in sorted(targets)
        if room(name) != room(target)
        and floor.get(room(target), 99) >= floor.get(room(name), -1)
        and (name, target) != ("privhier", first)
    ]


def circles(root: Path) -> list[list[str]]:
    """Files that import each other in a circle of any length, each circle once."""
    edges = graph(root)
    found, done = [], set[str]()

    def walk(name: str, way: list[str]) -> Iterator[list[str]]:
        if name in way:
            yield way[way.index(name) :]
            return
        if name in done:
            return
        for target in sorted(edges.get(name, set()) - {name}):
            yield from walk(target, [*way, name])
        done.add(name)

    for name in edges:
        found += list(walk(name, []))
    return found


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its name."""
    for name, path in sources(root).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", node


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def long_functions(root: Path, most: int = FUNCTION, where: str = "privhier") -> list[str]:
    """Functions with more lines of code than that."""
    return [name for name, node in functions(root) if name.startswith(where) and code_lines(node) > most]


def wide_functions(root: Path) -> list[str]:
    """Functions with too many parameters, outside the command line."""
    return [
        name
        for name, node in functions(root)
        if room(name) != "cli"
        and len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) > PARAMETERS
    ]


def loose(root: Path) -> list[str]:
    """The files at the top of ``privhier/``, where they are too many."""
    found = sorted(path.name for path in (root / "privhier").glob("*.py"))
    return found if len(found) > LOOSE else []


def line_counts(root: Path) -> dict[str, int]:
    """Lines of every file."""
    return {name: len(path.read_text().splitlines()) for name, path in sources(root).items()}


def long_files(root: Path) -> list[str]:
    """Files with too many lines."""
    return [name for name, count in line_counts(root).items() if count > LONGEST]


def median_lines(root: Path) -> float:
    """Lines of the file in the middle."""
    return statistics.median(line_counts(root).values())


MODEL = "privhier/models/a.py"
RULES = {"relative": relative_imports, "homeless": homeless, "climbing": climbing, "circles": circles}


@pytest.mark.parametrize("rule", RULES)
def test_the_rooms(repository, rule):
    assert RULES[rule](repository) == []


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        ("homeless", {"privhier/lab.py": ""}),
        ("homeless", {"privhier/kitchen/oven.py": ""}),
        (
            "climbing",
            {MODEL: "from privhier.training.b import x", "privhier/training/b.py": ""},
        ),
        (
            "climbing",
            {MODEL: "from privhier import training", "privhier/training/__init__.py": ""},
        ),
        (
            "climbing",
            {MODEL: "import privhier.training", "privhier/training/__init__.py": ""},
        ),
        ("climbing", {MODEL: "from privhier import run", "privhier/__init__.py": ""}),
        ("climbing", {MODEL: "import privhier", "privhier/__init__.py": ""}),
        ("climbing", {MODEL: "from privhier.datasets import b", "datasets/b.py": ""}),
        (
            "climbing",
            {"datasets/a.py": "def f():\n    import privhier.models.b", "privhier/models/b.py": ""},
        ),
        ("climbing", {"privhier/__init__.py": "from privhier.cli.a import x", "privhier/cli/a.py": ""}),
        ("relative", {MODEL: "from .b import x", "privhier/models/b.py": ""}),
        (
            "circles",
            {
                MODEL: "from privhier.models.b import x",
                "privhier/models/b.py": "import privhier.models.c",
                "privhier/models/c.py": "from privhier.models import a",
            },
        ),
        (
            "circles",
            {
                "privhier/models/__init__.py": "from privhier.models.a import x",
                MODEL: "from privhier.models import x",
            },
        ),
    ],
)
def test_a_broken_rule_is_seen(tmp_path, rule, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert RULES[rule](tmp_path) != []
    assert all(found(tmp_path) == [] for name, found in RULES.items() if name != rule)


def test_the_architecture_names_every_room_on_its_floor(repository):
    text = (repository / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", text, re.MULTILINE)
    said = {
        name.removeprefix("privhier/").removesuffix(".py").removesuffix("/"): int(number)
        for number, names in rows
        for name in re.findall(r"`([^`]+)`", names)
        if name not in ("privhier.attacks", "privhier.datasets", "__init__.py")
    }
    assert said == {name: number for number, floor in enumerate(FLOORS, 1) for name in floor}


def test_metrics_import_nothing_of_ours_and_evaluation_knows_no_attack(repository):
    for name, targets in graph(repository).items():
        if room(name) == "metrics":
            assert all(room(target) == room(name) for target in targets), name
        if room(name) == "evaluation":
            assert not any(room(target) == "attacks" for target in targets), name


def test_few_files_lie_loose_and_files_are_short(repository):
    assert loose(repository) == []
    assert long_files(repository) == []
    assert median_lines(repository) <= MEDIAN


def test_loose_and_long_files_are_seen(tmp_path):
    (tmp_path / "privhier").mkdir()
    for number in range(LOOSE + 1):
        (tmp_path / "privhier" / f"a{number}.py").write_text("\n" * (LONGEST + 1))
    assert len(loose(tmp_path)) == LOOSE + 1
    assert len(long_files(tmp_path)) == LOOSE + 1
    assert median_lines(tmp_path) == LONGEST + 1


def test_functions_are_short_and_narrow(repository):
    assert long_functions(repository) == []
    assert long_functions(repository, 60, "privhier.cli") == []
    assert wide_functions(repository) == []


def test_long_and_wide_functions_are_seen(tmp_path):
    (tmp_path / "privhier").mkdir()
    wide = ", ".join(f"a{number}" for number in range(PARAMETERS + 1))
    long = "\n".join(f"    b = {number}" for number in range(FUNCTION + 1))
    (tmp_path / "privhier" / "errors.py").write_text(f"def wide({wide}): pass\n\n\ndef long():\n{long}\n")
    assert long_functions(tmp_path) == ["privhier.errors.long"]
    assert wide_functions(tmp_path) == ["privhier.errors.wide"]


def test_package_list_matches_the_folders(repository):
    listed = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        name if path.name == "__init__.py" else name.rsplit(".", 1)[0]
        for name, path in sources(repository).items()
    }
    assert sorted(listed) == sorted(folders)


def test_what_a_room_does_not_need_is_not_loaded():
    """In one process, from below: each starts with torch, which takes seconds."""
    code = """
import sys
import privhier.config, privhier.config.shared
assert "torch" not in sys.modules
import privhier.planner.plan, privhier.planner.profile, privhier.planner.leakage_by_cut
assert "matplotlib" not in sys.modules
import privhier.session, privhier.training.trainer, privhier.attacks.build, privhier.tracking.tracker
import privhier.sweeps.job
assert not {"ray", "optuna", "mlflow"} & set(sys.modules)
import privhier.attacks.embedders.build as embedders
from privhier.config import Choice
embedders.build_embedder(Choice(name="inception_resnet_v1", options={"weights": "random"}))
assert not {"onnxruntime", "facenet_pytorch"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    for name in filter(None, listed):
        if (repository / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((repository / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, source], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_installs_one_top_level_name(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"privhier"}


def test_the_wheel_installed_elsewhere_imports_everything(wheel, repository, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, wheel]
    subprocess.run(command, check=True, capture_output=True)
    code = (
        f"import sys, importlib; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"import privhier; assert privhier.__file__.startswith({str(tmp_path)!r}), privhier.__file__\n"
        f"for name in {sorted(sources(repository))!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
