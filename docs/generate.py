"""The reference pages, made from the code while ``make docs`` builds the site; nothing of them is committed.

They say what the installed code says and cannot be out of date. Without a site the same words are at hand
from ``privhier config``, ``privhier list KIND NAME`` and ``--help``.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import privhier

# isort: split

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

from privhier.attacks.threat_models import THREAT_MODELS
from privhier.cli.catalog import entries, knowledge
from privhier.cli.main import DATA_VERBS, VERBS, app
from privhier.config import RunConfig
from privhier.config.reference import Key, options_of, reference
from privhier.datasets.arrays import from_arrays
from privhier.evaluation.result import Result
from privhier.evaluation.schema import FILE as SCHEMA_FILE
from privhier.evaluation.schema import json_schema, schema_text
from privhier.evaluation.score import Part
from privhier.sweeps.axis import Axis
from privhier.sweeps.spec import SweepFile
from privhier.training.deploy import ReleasingEdge

ROOT = Path(__file__).parents[1]
TREE = ROOT / "build" / "tree" / "privhier"
"""Where ``mkdocs.yml`` has mkdocstrings look."""
_MATH_BLOCK = re.compile(r"^\.\. math:: ?(.*(?:\n(?: {4}.*|(?=\n {4})))*)", re.MULTILINE)
_MATH = re.compile(r":math:`([^`]+)`")
_SECTION = re.compile(r"^(?:Args|Attributes):\n(?:(?: {4}.*)?(?:\n|\Z))*", re.MULTILINE)
_GENERATED = "<!-- Made by docs/generate.py from the code. -->\n\n"


def on_startup(**_: object) -> None:
    """MkDocs' hook: lay out the package as it is imported, for mkdocstrings, which reads and imports nothing.

    ``attacks/`` and ``datasets/`` lie outside ``privhier/`` in the repository. mkdocstrings looks for the
    folder when it is configured: later than this would be too late.
    """
    shutil.rmtree(TREE, ignore_errors=True)
    only = shutil.ignore_patterns("__pycache__")
    for room, place in (("privhier", TREE), ("attacks", TREE / "attacks"), ("datasets", TREE / "datasets")):
        shutil.copytree(ROOT / room, place, ignore=only)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs' hook: add the generated pages to those that lie in ``docs/``."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Path in the site to text."""
    made = {
        "reference/configuration.md": _configuration(),
        "reference/sweep.md": _sweep(),
        "reference/result.md": _result(),
        "reference/commands.md": _commands(),
        "reference/python.md": _python(),
    }
    for kind, words in CATALOG.items():
        made[f"reference/{kind}.md"] = _catalog(kind, words)
    return {path: _GENERATED + text for path, text in made.items()} | {
        f"reference/{SCHEMA_FILE}": schema_text()
    }


CATALOG = {
    "defenses": "What `defense.name` may be. None of them is a guarantee; "
    "[choosing a defense](../defenses.md) says when to take which.",
    "attacks": "What may stand under `attacks.attribute`, `.verification`, `.reconstruction`, `.property` "
    "and `.membership`. [The attack bench](../attacks.md) says who holds what.",
    "backbones": "What `model.backbone` may be, with the stages after which it can be cut.",
    "datasets": "What `dataset.name` may be; options go under `dataset.options`.",
    "embedders": "What may stand under `attacks.embedders`: face embedders that try to recognize pictures.",
}


def _configuration() -> str:
    lines = [
        "# Every configuration key",
        "",
        "A configuration is a YAML file of these sections. On the command line a key is overridden by its "
        "path: `release.sigma=0.5`. `privhier config KEY` prints the same in a terminal.",
    ]
    for key in reference():
        if "." not in key.path:
            lines += ["", f"## {key.path} {{#{key.path}}}"]
        else:
            lines += ["", f"### `{key.path}` {{#{key.path}}}"]
        lines += _key_lines(key)
    return "\n".join(lines) + "\n"


def _sweep() -> str:
    lines = [
        "# Every key of a sweep file",
        "",
        "See [sweeps and the front](../sweeps.md) for what to do with one.",
    ]
    for prefix, model in (("", SweepFile), ("axes[].", Axis)):
        for key in reference(model, prefix):
            lines += ["", f"## `{key.path}` {{#{key.path.replace('[]', '')}}}", *_key_lines(key)]
    return "\n".join(lines) + "\n"


def _key_lines(key: Key) -> list[str]:
    facts = [] if key.is_section else [key.type, *([key.rule] if key.rule else [])]
    if key.default and not key.is_section:
        facts.append("required" if key.default == "(required)" else f"default `{key.default}`")
    return [*(["", f"*{'; '.join(facts)}*" if facts else ""]), "", key.meaning]


def _catalog(kind: str, words: str) -> str:
    lines = [f"# {kind.capitalize()}", "", words]
    if kind == "attacks":
        lines += ["", "| threat model | what it holds beside its own labelled images |", "|---|---|"]
        lines += [f"| `{name}` | {holds} |" for name, holds in THREAT_MODELS.items()]
    for name, entry in entries(kind):
        lines += ["", f"## `{name}` {{#{name}}}", "", _source(entry), "", text_of(entry)]
        lines += [text for line in knowledge(entry) for text in ("", line)]
        keys = options_of(entry, ("target",)) if isinstance(entry, type) else []
        if keys:
            lines += ["", "| option | takes | default | meaning |", "|---|---|---|---|"]
            lines += [_row(key) for key in keys]
    return "\n".join(lines) + "\n"


def _row(key: Key) -> str:
    takes = "; ".join(part for part in (key.type, key.rule) if part)
    cells = (f"`{key.path}`", takes, f"`{key.default}`" if key.default else "", key.meaning)
    return f"| {' | '.join(markdown(cell).replace('|', '&#124;') for cell in cells)} |"


def _source(entry: Any) -> str:
    """Kind, file, and what its first line says, which names the paper."""
    module = inspect.getmodule(entry)
    assert module is not None
    file = module.__name__.replace(".", "/") + ".py"
    file = re.sub(r"^privhier/(?=(?:attacks|datasets)/)", "", file)  # where they lie in the repository
    first = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
    kind = f"{entry.kind} attack; " if isinstance(getattr(entry, "kind", None), str) else ""
    return f"{kind}`{file}`: *{markdown(first)}*"


def text_of(entry: Any) -> str:
    """A docstring as Markdown, without its list of options."""
    return markdown(_SECTION.sub("", inspect.getdoc(entry) or "")).strip()


def markdown(text: str) -> str:
    """Docstring markup as Markdown; formulas as MathML, which browsers draw without a script."""
    text = _MATH_BLOCK.sub(lambda found: f"\n{_mathml(found[1], 'block')}\n", text)
    return _MATH.sub(lambda found: _mathml(found[1], "inline"), text)


def _mathml(latex: str, display: str) -> str:
    return str(convert(" ".join(latex.split()).rstrip(","), display=display))


def _result() -> str:
    schema = json_schema()
    lines = [
        "# result.json",
        "",
        f"Every run writes `result.json`; its format is `{schema['properties']['schema']['const']}`. The "
        f"JSON Schema ([{SCHEMA_FILE}]({SCHEMA_FILE})) is shipped in the package: "
        "`privhier.evaluation.schema.json_schema()`. A change that readers would notice gets a new number.",
    ]
    for name, part in {"result.json": schema, **schema["$defs"]}.items():
        lines += ["", f"## {name} {{#{name}}}", "", part.get("description", "").split("\n\n")[0], ""]
        lines += ["| field | what it is | meaning |", "|---|---|---|"]
        required = part.get("required", [])
        for field, facts in part["properties"].items():
            kind = _schema_type(facts) + ("" if field in required else " (optional)")
            lines.append(f"| `{field}` | {kind} | {' '.join(facts.get('description', '').split())} |")
    return "\n".join(lines) + "\n"


def _schema_type(facts: dict[str, Any]) -> str:
    """A JSON Schema type in words, with links to parts."""
    if "$ref" in facts:
        name = facts["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "const" in facts:
        return f"`{facts['const']}`"
    if "enum" in facts:
        return "one of " + ", ".join(f"`{one}`" for one in facts["enum"])
    if "anyOf" in facts:
        return " or ".join(_schema_type(one) for one in facts["anyOf"])
    if facts.get("type") == "array":
        inner = facts.get("items") or {"anyOf": facts.get("prefixItems", [{}])}
        return f"list of {_schema_type(inner)}"
    if facts.get("type") == "object":
        inner = facts.get("additionalProperties")
        return f"mapping to {_schema_type(inner)}" if isinstance(inner, dict) else "mapping"
    return str(facts.get("type", "anything"))


def _commands() -> str:
    lines = ["# Every verb", "", "As `privhier VERB --help` says it."]
    for path, example, command in _verbs():
        lines += [
            "",
            f"## `privhier {path}` {{#{path.replace(' ', '-')}}}",
            "",
            inspect.cleandoc(command.help),
        ]
        lines += ["", "```console", f"privhier {path} {example}", "```", ""]
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        lines += [_parameter(one) for one in command.params]
    return "\n".join(lines) + "\n"


def _parameter(one: Any) -> str:
    names = one.metavar if one.param_type_name == "argument" else ", ".join(one.opts)
    plain = one.default is None or one.default is False
    shown = (f"`{names or one.name}`", "" if plain else f"`{one.default}`", escape(one.help or ""))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in shown)} |"


def _verbs() -> Iterator[tuple[str, str, Any]]:
    group: Any = get_command(app)
    for verb, (_, example) in VERBS.items():
        yield verb, example, group.commands[verb]
    for verb, (_, example) in DATA_VERBS.items():
        yield f"data {verb}", example, group.commands["data"].commands[verb]


def _python() -> str:
    lines = [
        "# The Python API",
        "",
        "What `import privhier` offers, loaded when asked for; [in Python](../python.md) shows it at work.",
    ]
    offered = [getattr(privhier, name) for name in privhier.__all__]
    results = [one for one in offered if inspect.isclass(one) and issubclass(one, Part)]
    others = [one for one in offered if not inspect.ismodule(one) and one not in (*results, RunConfig)]
    others.sort(key=inspect.isclass)  # what one calls first, then what one is given
    for found in [*others, from_arrays, ReleasingEdge]:
        lines += ["", f"::: {found.__module__}.{found.__qualname__}"]
    schema = {Result.__name__: "result.json"}
    lines += ["", "## Parts of a result", "", "`done.result`, with the fields of `result.json`:", ""]
    lines += [f"- [`{one.__name__}`](result.md#{schema.get(one.__name__, one.__name__)})" for one in results]
    lines += ["", "## Configuration", ""]
    lines += ["`RunConfig`, what `load_config` returns, has the [keys of a configuration](configuration.md)."]
    return "\n".join(lines) + "\n"
