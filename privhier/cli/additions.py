"""``privhier attack RUN --add NAME[,KEY=VALUE]...``: one more attack on a finished run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privhier.cli.console import note, progress_bar, say
from privhier.process.stopping import interruptible

if TYPE_CHECKING:
    from privhier.config import Choice
    from privhier.evaluation.result import Result
    from privhier.session import Added

_CLOSING = {"[": "]", "{": "}", "(": ")"}


def add_to(run: Path, texts: Sequence[str], overrides: Sequence[str]) -> None:
    """Add the attacks that ``texts`` name to the run, and say what came of it."""
    from privhier import session as job
    from privhier.assessment.additions import asked
    from privhier.training.trained import load_trained

    choices = [read_addition(text) for text in texts]
    for choice in choices:
        asked(choice)  # before a data set is loaded
    _refuse_others(run, overrides)
    command = shlex.join(["privhier", "attack", str(run), *(f"--add={text}" for text in texts), *overrides])
    with interruptible(command), progress_bar() as progress:
        session = job.reopen_session(run, overrides, progress=progress)
        trained = load_trained(session.config, session.prepared.data, session.folder)
        added = job.add_attacks(session, trained, choices, command=command)
    say(*told(added))
    if added.new:
        say(f"result: {session.folder.result}", f"report: {session.folder.report}", *_around(run))
    if added.tracking_failure is not None:
        note(f"warning: MLflow: {added.tracking_failure}")


def told(added: Added) -> Iterator[str]:
    """What became of it, a line each."""
    from privhier.evaluation.headline import headline
    from privhier.report.summary import headline_text

    for sentence in added.skipped:
        yield f"nothing to do: {sentence}"
    for one in added.new:
        yield f"added: {one.described}, {one.date}"
    if not added.new:
        return
    for attribute, leakage in added.result.leakage.items():
        was = headline(added.before.leakage[attribute])
        before = "" if was is None else f" (before: {was.score.value:.3f}, by {was.attack})"
        yield f"leakage {attribute}: {headline_text(leakage)}{before}"
    yield from _pictures(added.before, added.result)


def _around(run: Path) -> list[str]:
    """What is stale now: the page of the sweep that the run is a point of."""
    from privhier.evaluation.points import is_sweep

    folder = run.absolute().parent
    inside = folder.name == "points" and is_sweep(folder.parent)
    return [f"next:   privhier report {folder.parent}"] if inside else []


def _pictures(before: Result, after: Result) -> Iterator[str]:
    from privhier.report.summary import show

    for name, scores in after.reconstruction.items():
        if name not in before.reconstruction and scores.ssim is not None:
            yield f"reconstruction {name}: SSIM {show(scores.ssim)}"


def read_addition(text: str) -> Choice:
    """``NAME[,KEY=VALUE]...`` as a choice; values are YAML, and may hold commas in brackets or quotes.

    Raises:
        ConfigError: It does not read so.

    Example:
        >>> read_addition("mlp,epochs=5,widths=[16, 32]").options
        {'epochs': 5, 'widths': [16, 32]}
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from privhier.config import Choice
    from privhier.config.errors import validated

    name, *pairs = split_outside(text)
    options: dict[str, object] = {}
    for pair in pairs:
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not key or not key.isidentifier() or not value:
            raise _malformed(text, f"has {pair.strip()!r} where KEY=VALUE belongs")
        if key in options:
            raise _malformed(text, f"gives {key} twice")
        try:
            options[key] = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={value}"]))[key]
        except (OmegaConfBaseException, YAMLError) as error:
            raise _malformed(text, f"has a value of {key} that is no YAML: {error}") from error
    if not name.strip():
        raise _malformed(text, "names no attack")
    return validated(Choice, {"name": name.strip(), "options": options})


def split_outside(text: str) -> list[str]:
    """``text`` cut at commas outside of brackets and quotes.

    Example:
        >>> split_outside("a,b=[1, 2],c='x, y'")
        ['a', 'b=[1, 2]', "c='x, y'"]
    """
    parts, awaited, quote = [""], list[str](), ""
    for one in text:
        if quote:
            quote = "" if one == quote else quote
        elif one in "\"'":
            quote = one
        elif one in _CLOSING:
            awaited.append(_CLOSING[one])
        elif awaited and one == awaited[-1]:
            awaited.pop()
        elif one == "," and not awaited:
            parts.append("")
            continue
        parts[-1] += one
    return parts


def _malformed(text: str, rule: str) -> Exception:
    from privhier.errors import ConfigError

    return ConfigError(
        key="--add",
        value=text,
        rule=rule,
        remedy="It must read NAME[,KEY=VALUE]..., for instance: --add nearest_neighbors,neighbors=[3,9]",
    )


def _refuse_others(run: Path, overrides: Sequence[str]) -> None:
    """Say what is no finished run before a data set is loaded."""
    from privhier.errors import ConfigError
    from privhier.evaluation.points import is_sweep
    from privhier.evaluation.result import Result
    from privhier.training.folder import RunFolder
    from privhier.training.occupancy import saved_config

    if is_sweep(run):
        raise ConfigError(
            key="RUN",
            value=str(run),
            rule="is a sweep, not a run",
            remedy=f"Name one of its points: {run}/points/ID",
        )
    folder = RunFolder(run)
    saved_config(folder, overrides)
    Result.of_run(folder.sealed, folder.result)
