"""The site: its generated pages, its links, and that it is built without a warning and fetches nothing."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from yaml import safe_load

import privhier

pytest.importorskip("mkdocs", reason="the site needs the extra docs: pip install -e '.[docs]'")
pytest.importorskip("latex2mathml", reason="the site needs the extra docs: pip install -e '.[docs]'")

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
BESIDE = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "experiments/README.md")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return dict(runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]())


def anchors(text: str) -> set[str]:
    """Where a page can be linked into: explicit ids, else its headings as Markdown makes ids of them."""
    found = set(re.findall(r"\{#([^}]+)\}", text))
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        plain = re.sub(r"[^\w\s-]", "", heading.split("{#")[0]).strip().lower()
        found.add(re.sub(r"[\s-]+", "-", plain))
    return found


def test_links_lead_somewhere(generated):
    sources = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "docs").glob("*.md")}
    sources |= {Path("docs") / name: text for name, text in generated.items() if name.endswith(".md")}
    sources |= {Path(name): (ROOT / name).read_text() for name in BESIDE}
    seen = 0
    for source, text in sources.items():
        for found in LINK.finditer(re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.M | re.S)):
            link = found[1] or found[2]
            if link.startswith(("http://", "https://")):
                continue
            seen += 1
            file, _, anchor = link.partition("#")
            target = Path(*_normal((source.parent / file).parts)) if file else source
            assert target in sources or (ROOT / target).exists() or _made(target, generated), (
                f"{source}: {link}"
            )
            if anchor and target in sources:
                assert anchor in anchors(sources[target]), f"{source}: {link}"
    assert seen > 50


def _normal(parts: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    for part in parts:
        if part == "..":
            kept.pop()
        else:
            kept.append(part)
    return kept


def _made(target: Path, generated: dict[str, str]) -> bool:
    return target.parts[:1] == ("docs",) and target.relative_to("docs").as_posix() in generated


def test_every_page_is_in_the_menu(generated):
    menu = safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = re.findall(r"[\w/-]+\.md", str(menu))
    there = {path.name for path in (ROOT / "docs").glob("*.md")} | {n for n in generated if n.endswith(".md")}
    assert sorted(named) == sorted(there)


def test_references_hold_every_key_name_and_verb(generated):
    from privhier.attacks.base import attacks
    from privhier.cli.main import VERBS
    from privhier.config.reference import reference
    from privhier.defenses.base import defenses

    assert all(f"{{#{key.path}}}" in generated["reference/configuration.md"] for key in reference())
    assert all(f"{{#{name}}}" in generated["reference/defenses.md"] for name in defenses.names())
    assert all(f"{{#{name}}}" in generated["reference/attacks.md"] for name in attacks.names())
    api = generated["reference/python.md"]
    rooms = {"attacks", "datasets", "defenses"}
    assert all(re.search(rf"\b{name}\b", api) for name in set(privhier.__all__) - rooms)
    assert all(f"`privhier {verb}`" in generated["reference/commands.md"] for verb in VERBS)
    assert (
        "privhier/defenses/max_entropy.py`: *Maximum entropy (Roy and Boddeti, 2019)"
        in (generated["reference/defenses.md"])
    )


OTHERS = {"spoiled"}
"""What tests of registries in the same process register; they say nothing."""


def test_every_option_and_key_of_a_sweep_says_what_it_means(generated):
    for name in ("defenses", "attacks", "datasets", "embedders"):
        rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", generated[f"reference/{name}.md"], re.M)
        silent = [option for option, meaning in rows if len(meaning) < 4]
        assert set(silent) <= OTHERS, f"{name}: {silent}"
    for section in generated["reference/sweep.md"].split("\n## ")[1:]:
        assert len(section.strip().splitlines()[-1]) > 3, section


def test_no_markup_of_docstrings_is_left(generated):
    for name, text in generated.items():
        assert not re.search(r":\w+:`|\.\. \w+::", text), name


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    for name in ("privhier", "attacks", "datasets", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"],
        cwd=tmp_path,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    pages = list((tmp_path / "build" / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"([^\"]+)\"", page.read_text()
        )
        assert not [one for one in loaded if one.startswith(("http:", "https:", "//"))], page.name
