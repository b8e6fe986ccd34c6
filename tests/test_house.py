"""The house rules that a machine can check: floors, packages, file sizes, imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

FLOORS = [
    ["privhier.errors", "privhier.openmp"],
    [
        "privhier.registry",
        "privhier.config",
        "privhier.config_shared",
        "privhier.seeding",
        "privhier.locks",
        "privhier.cores",
        "privhier.sealed",
        "privhier.files",
        "privhier.stopping",
    ],
    ["privhier.datasets", "privhier.models", "privhier.metrics"],
    ["privhier.privacy", "privhier.defenses", "privhier.uplink"],
    ["privhier.training", "privhier.evaluation"],
    [
        "privhier.attacks",
        "privhier.tracking",
        "privhier.tracking_model",
        "privhier.tracking_store",
        "privhier.tracking_sqlite",
    ],
    ["privhier.lab", "privhier.plan", "privhier.plan_text", "privhier.statement", "privhier.catalog"],
    ["privhier.session", "privhier.run", "privhier.remote", "privhier.join"],
    ["privhier.sweep", "privhier.plan_command", "privhier.certs_command", "privhier.link_command"],
    ["privhier.cli"],
    ["privhier.start"],
]


def sources(root: Path) -> dict[str, Path]:
    found = {}
    for folder, package in (
        ("privhier", "privhier"),
        ("attacks", "privhier.attacks"),
        ("datasets", "privhier.datasets"),
    ):
        for path in (root / folder).rglob("*.py"):
            parts = path.relative_to(root / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join([package, *parts])] = path
    return found


def floor(module: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if any(module == room or module.startswith(room + ".") for room in rooms):
            return number
    return 0


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("privhier"):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("privhier")}
    return found


def test_no_file_imports_from_a_floor_above(repository):
    modules = sources(repository)
    climbing = [
        f"{name} imports {target}"
        for name, path in modules.items()
        for target in imports(path)
        if floor(target) > floor(name)
    ]
    assert climbing == []


def test_no_two_files_import_each_other(repository):
    modules = sources(repository)
    graph = {name: imports(path) & set(modules) for name, path in modules.items()}
    mutual = [(a, b) for a, targets in graph.items() for b in targets if a in graph[b] and a != b]
    assert mutual == []


def test_metrics_import_nothing_of_ours_and_evaluation_knows_no_attack(repository):
    for name, path in sources(repository).items():
        if name.startswith("privhier.metrics."):
            assert all(target.startswith("privhier.metrics") for target in imports(path)), name
        if name.startswith("privhier.evaluation"):
            assert not any("attacks" in target for target in imports(path)), name


def test_no_file_is_longer_than_400_lines(repository):
    long = {n: c for n, p in sources(repository).items() if (c := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_package_list_matches_the_folders(repository):
    listed = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        name if path.name == "__init__.py" else name.rsplit(".", 1)[0]
        for name, path in sources(repository).items()
    }
    assert sorted(listed) == sorted(folders)


def test_training_and_attacks_import_without_mlflow():
    code = (
        "import sys, privhier.run, privhier.training.schedule, privhier.attacks.build, privhier.tracking; "
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
