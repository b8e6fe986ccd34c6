"""YAML in, overrides merged, every error saying key, value, rule, remedy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field
from yaml import YAMLError

from privhier.config.base import Section
from privhier.config.data import DatasetConfig
from privhier.config.errors import validated
from privhier.config.expressions import EXPRESSIONS, quote_calls
from privhier.config.run import RunConfig
from privhier.errors import ConfigError, PrivhierWarning

RIVALS = (
    ("release.sigma", "release.target_epsilon"),
    ("edge.dp_sgd.noise_multiplier", "edge.dp_sgd.target_epsilon"),
)
"""Keys of which a section takes exactly one."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, merge ``key.path=value`` overrides and validate.

    An override of ``dataset.name`` or ``defense.name`` drops the options that the file gives the old name,
    and one of ``target_epsilon`` the scale of noise that the file gives in its place (or the other way
    round); a ``PrivhierWarning`` says so.

    Raises:
        ConfigError: Unreadable file, malformed override, unknown key, wrong type or broken rule.
    """
    return parse_config(read_config(path, overrides))


def read_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Any:
    """What ``load_config`` validates, as plain data.

    Args:
        source: A YAML file, or what such a file holds.
        overrides: ``key.path=value`` each.

    Raises:
        ConfigError: Unreadable file or malformed override.
    """
    base = OmegaConf.create(dict(source)) if isinstance(source, Mapping) else _loaded(source)
    if not isinstance(base, DictConfig):
        return OmegaConf.to_container(base)
    for item in overrides:
        if "=" not in item or item.startswith("="):
            raise ConfigError(
                key="override",
                value=item,
                rule="must read key.path=value",
                remedy="For instance: release.sigma=0.3",
            )
        if not item.isascii() and item != item.encode(errors="replace").decode():
            raise ConfigError(
                key=item.partition("=")[0],
                value=item.partition("=")[2],
                rule="holds bytes that are not UTF-8; a configuration is text",
                remedy="Rename that folder, or give it a link whose own name is UTF-8: ln -s OLD NEW",
            )
    try:
        changes = OmegaConf.from_dotlist([_quoted(item) for item in overrides])
        _forget_options(base, changes)
        _forget_rivals(base, changes)
        return OmegaConf.to_container(OmegaConf.merge(base, changes), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(
            key="override",
            value=" ".join(overrides),
            rule=f"cannot be merged: {error}",
            remedy="Check the key path against the configuration file",
        ) from error


class _DatasetOnly(Section):
    """A file of which the data set and the seed are read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: DatasetConfig
    seed: int = Field(0, ge=0)


def load_dataset_section(path: str | Path, overrides: Sequence[str] = ()) -> tuple[DatasetConfig, int]:
    """The ``dataset:`` section and the seed of a file that may hold nothing else, or faults elsewhere.

    Raises:
        ConfigError: As ``load_config``, of these two alone.
    """
    read = validated(_DatasetOnly, read_config(path, overrides))
    return read.dataset, read.seed


def _loaded(path: str | Path) -> Any:
    try:
        return OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ConfigError(
            key="CONFIG",
            value=str(path),
            rule="must be a readable YAML file",
            remedy="Give the path of a configuration, e.g. configs/quickstart.yaml",
        ) from error
    except (OSError, YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(
            key="CONFIG", value=str(path), rule=f"is not valid YAML: {error}", remedy="Mend the file"
        ) from error


def _quoted(item: str) -> str:
    """An override of a list of attribute expressions with the quotes that YAML needs."""
    key, _, value = item.partition("=")
    return f"{key}={quote_calls(value)}" if key in EXPRESSIONS else item


def _forget_options(base: DictConfig, changes: DictConfig) -> None:
    """Options belong to a name: an override that names another data set or defense drops the file's."""
    for key in ("dataset", "defense"):
        old, new = base.get(key), changes.get(key)
        both = isinstance(old, DictConfig) and isinstance(new, DictConfig)
        if both and new.get("name", old.get("name")) != old.get("name"):
            old.pop("options", None)


def _forget_rivals(base: DictConfig, changes: DictConfig) -> None:
    """Of two keys of which a section takes one, an override of one drops the file's other, and says so."""
    for first, second in RIVALS:
        for new, old in ((first, second), (second, first)):
            dropped = OmegaConf.select(base, old)
            if OmegaConf.select(changes, new) is None or _names(changes, old) or dropped is None:
                continue
            OmegaConf.update(base, old, None)
            warnings.warn(
                f"{old}: {dropped} of the file is dropped: {new} is given in its place",
                PrivhierWarning,
                stacklevel=4,
            )


def _names(changes: DictConfig, path: str) -> bool:
    """Whether the overrides name a key, be it to empty it."""
    section, _, key = path.rpartition(".")
    inside = OmegaConf.select(changes, section)
    return isinstance(inside, DictConfig) and key in inside


def parse_config(data: Any) -> RunConfig:
    """Validate plain data; the first error becomes a ``ConfigError`` that counts the others."""
    return validated(RunConfig, data)
