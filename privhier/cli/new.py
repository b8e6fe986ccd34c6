"""The verb ``privhier new``: a first configuration for a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from privhier.cli.console import note, say


def new(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="As in privhier list datasets")],
    root: Annotated[
        Path | None, typer.Option("--root", help="Its folder; default: under $PRIVHIER_DATA")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Of the data set, e.g. csv=people.csv; repeated"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="What the cloud is to predict; repeated"),
    ] = None,
    sensitive: Annotated[
        list[str] | None,
        typer.Option(
            "--sensitive",
            metavar="NAME",
            help="What nobody may read off a release; repeated",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; default: DATASET.yaml", show_default=False)
    ] = None,
) -> None:
    """Look at a data set's labels, say what is there, and write a commented configuration to start from."""
    from privhier.config import DatasetConfig
    from privhier.config.errors import validated
    from privhier.datasets.base import examples
    from privhier.datasets.starter import starter
    from privhier.storage.files import write_atomic

    file = out if out is not None else Path(f"{dataset}.yaml")
    _refuse_existing(file)
    section = {
        "name": dataset,
        "root": None if root is None else str(root),
        "task": ["task"],
        "sensitive": ["sensitive"],
        "options": _options(option or []),
    }
    with _own_words():
        made = starter(
            validated(DatasetConfig, section),
            name=_run_name(file),
            task=task or (),
            sensitive=sensitive or (),
        )
    write_atomic(file, made.yaml)
    say(*made.lines, f"task: {', '.join(made.task)}; secret: {', '.join(made.sensitive)}")
    if not (task and sensitive):
        say("to choose otherwise: --task NAME, --sensitive NAME (each may be repeated), or edit the file")
    for problem in examples(made.problems, 4):
        note(f"problem: {problem.where}: {problem.reason}")
    say(f"written: {file}", f"next:    privhier run {file}")


_WORDS = {
    "dataset.options.": "--option ",
    "dataset.root": "--root",
    "dataset.task": "--task",
    "dataset.sensitive": "--sensitive",
}
"""What a key of a configuration is called here, where there is none yet."""


@contextmanager
def _own_words() -> Iterator[None]:
    """Errors that name an option of this verb instead of the key that it writes."""
    from privhier.errors import PrivhierError

    def said(text: str) -> str:
        for key, option in _WORDS.items():
            text = text.replace(key, option)
        return text

    try:
        yield
    except PrivhierError as error:
        raise type(error)(
            key=said(error.key), value=error.value, rule=said(error.rule), remedy=said(error.remedy)
        ) from error


def _options(texts: list[str]) -> dict[str, object]:
    from yaml import YAMLError, safe_load

    from privhier.errors import ConfigError

    found: dict[str, object] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        try:
            found[key] = safe_load(value)
        except YAMLError:
            sign = ""
        if not sign or not key:
            raise ConfigError(
                key="--option",
                value=text,
                rule="must read KEY=VALUE",
                remedy="For instance: --option csv=people.csv",
            )
    return found


def _refuse_existing(file: Path) -> None:
    from privhier.errors import OutputError

    if file.exists():
        raise OutputError(
            key="--out",
            value=str(file),
            rule="is there already",
            remedy="Name another file, or move that one away",
        )


def _run_name(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem) or "run"
