"""Who a run folder belongs to: nobody, or this run alone, unaltered, and one process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from privhier.config import HASHLESS, RunConfig, parse_config, read_config
from privhier.errors import CheckpointError, ConfigError, OutputError
from privhier.storage.locks import exclusive
from privhier.storage.sealed import NAME, altered
from privhier.training.folder import RunFolder

MOVABLE = (
    "dataset.root",
    "dataset.cache",
    "runtime.threads",
    "runtime.device",
    "runtime.channels_last",
    "runtime.resident",
    "report.pictures",
    "tracking.enabled",
)
"""Keys that may be another on every call that works on a finished run: none of them is in the hash."""
_OURS = {NAME, ".lock"}
"""Names that a run may have left before its configuration was written: such a folder is still empty."""
_SHOWN = 5


def saved_config(folder: RunFolder, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration saved in a run folder, as it was written there.

    Args:
        folder: The run folder.
        overrides: ``key.path=value`` of keys in ``MOVABLE``, e.g. where the images are now.

    Raises:
        CheckpointError: There is none, or it was altered since.
        ConfigError: An override that does not fit, or of a key that belongs to the run.
    """
    if not folder.sealed.knows(folder.config):
        raise CheckpointError(
            key="RUN",
            value=str(folder.root),
            rule="is not a run folder (it has no config.yaml)",
            remedy="Give a folder that `privhier run` or `privhier train` wrote",
        )
    for item in overrides:
        if (key := item.partition("=")[0]) not in MOVABLE:
            raise ConfigError(
                key=key,
                value=item,
                rule="cannot be changed in a run that exists",
                remedy=f"Only {', '.join(MOVABLE)} can; start a new run for anything else",
            )
    folder.sealed.require()
    data = read_config(folder.sealed.checked(folder.config), overrides)
    if isinstance(data, dict) and isinstance(edge := data.get("edge"), dict):
        edge.setdefault("warmup_epochs", 0)  # a folder from before the key existed was not warmed up
    if isinstance(data, dict) and isinstance(runtime := data.get("runtime"), dict):
        runtime.setdefault("channels_last", False)  # nor trained on maps laid out otherwise
    config = parse_config(data)
    if folder.sealed.bound("config") != config.hash():
        raise altered(folder.config, "is not the configuration that this folder belongs to")
    return config


def check_output(folder: RunFolder, config: RunConfig, *, resume: bool) -> None:
    """Refuse a folder that is taken, or, when resuming, one that belongs to another configuration.

    Raises:
        CheckpointError: Another configuration (the keys that differ are named), or an altered folder.
        OutputError: Taken, or not to be written.
    """
    root = folder.root
    if resume and folder.config.exists():
        saved = saved_config(folder)
        if saved.hash() != config.hash():
            raise CheckpointError(
                key="--resume",
                value=str(root),
                rule=f"belongs to another configuration: {differences(saved, config)}",
                remedy="Resume with the same CONFIG and overrides, or choose another --out",
            )
        return
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - _OURS):
        raise OutputError(
            key="--out",
            value=str(root),
            rule="exists already and is not an empty folder",
            remedy="Choose another --out, or add --resume to go on with the run in it",
        )
    probe = root if root.exists() else _nearest_parent(root)
    try:
        test = probe / f".privhier-{os.getpid()}"
        test.touch()
        test.unlink()
    except OSError as error:
        raise _unwritable(root, error) from error


@contextmanager
def held(folder: RunFolder, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a run folder while the block works in it.

    Args:
        folder: The folder.
        waiting: Called once if another process holds it; then it is waited for. None: it is refused.

    Raises:
        OutputError: Another process works in it, or it cannot be written.
    """
    try:
        with exclusive(folder.lock, wait=False) as free:
            if free:
                yield
                return
    except OSError as error:
        if error.filename != str(folder.lock):
            raise
        raise _unwritable(folder.root, error) from error
    if waiting is None:
        raise worked_in(folder.root)
    waiting()
    with exclusive(folder.lock):
        yield


def occupy(folder: RunFolder, config: RunConfig, fingerprint: str) -> None:
    """Make a folder this run's: bind it to configuration and data, and write the configuration.

    Args:
        folder: A free folder, or the run's own.
        config: The run's configuration.
        fingerprint: Of the data set as loaded.

    Raises:
        CheckpointError: It belongs to another configuration, or began with other images.
    """
    folder.sealed.bind(config=config.hash(), data=fingerprint)
    note_resumed(folder, config)
    folder.sealed.write(folder.config, config.to_yaml())


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The configuration as it is saved: folders of the data do not depend on the current folder."""
    given = {name: getattr(config.dataset, name) for name in ("root", "cache")}
    update = {name: str(Path(path).absolute()) for name, path in given.items() if path is not None}
    return config.model_copy(update={"dataset": config.dataset.model_copy(update=update)})


def note_resumed(folder: RunFolder, config: RunConfig) -> None:
    """Write down that a run goes on with other threads, another device or another layout than before."""
    if not folder.sealed.lists(folder.config):
        return
    before = saved_config(folder)
    changed = [
        f"runtime.{name}={getattr(config.runtime, name)} (before: {getattr(before.runtime, name)})"
        for name in ("threads", "device", "channels_last")
        if getattr(config.runtime, name) != getattr(before.runtime, name)
    ]
    if changed:
        folder.sealed.write_json(folder.resumed, [*resumptions(folder), *changed])


def resumptions(folder: RunFolder) -> list[str]:
    """What ``note_resumed`` wrote down, as ``key=value (before: value)``."""
    if not folder.sealed.lists(folder.resumed):
        return []
    return [str(text) for text in folder.sealed.read_json(folder.resumed)]


def worked_in(root: Path) -> OutputError:
    """The error of a folder that another process holds."""
    return OutputError(
        key="--out",
        value=str(root),
        rule="is being worked in by another process",
        remedy="Wait for it to end, or choose another --out",
    )


def differences(before: BaseModel, now: BaseModel) -> str:
    """The keys in which two configurations differ, with both values; what is in no hash left out."""
    old, new = (dict(_flat(config.model_dump(mode="json", exclude=HASHLESS))) for config in (before, now))
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = [f"{key} is {old.get(key)!r} there, {new.get(key)!r} here" for key in keys[:_SHOWN]]
    more = [f"{len(keys) - _SHOWN} more keys"] if len(keys) > _SHOWN else []
    return "; ".join([*shown, *more])


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _nearest_parent(path: Path) -> Path:
    for parent in path.absolute().parents:
        if parent.exists():
            return parent
    return Path("/")


def _unwritable(root: Path, error: OSError) -> OutputError:
    return OutputError(
        key="--out",
        value=str(root),
        rule=f"cannot be written: {error.strerror or error}",
        remedy="Choose a folder you may write to",
    )
