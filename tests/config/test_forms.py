"""A value of a form that a key does not take: the error names the key and every form that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from privhier.config import parse_config
from privhier.config.forms import annotation_at, forms
from privhier.config.reference import reference
from privhier.config.run import RunConfig
from privhier.errors import ConfigError

LEAST: dict[str, Any] = {
    "name": "least",
    "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
    "schedule": {"pretrain_epochs": 1, "cloud_epochs": 1},
}
SEVERAL = {
    key.path: found
    for key in reference()
    if len(found := forms(annotation_at(RunConfig, key.path.split(".")))) > 1
}


def refused(path: str, value: Any) -> ConfigError:
    """What a configuration is refused with that has ``value`` under ``path``."""
    data: dict[str, Any] = {key: dict(one) if isinstance(one, dict) else one for key, one in LEAST.items()}
    *above, last = path.split(".")
    level = data
    for name in above:
        level = level.setdefault(name, {})
    level[last] = value
    with pytest.raises(ConfigError) as error:
        parse_config(data)
    return error.value


def test_there_are_keys_of_every_kind():
    assert {"attacks.adaptive", "release.clip", "runtime.threads", "runtime.resident", "defense"} < set(
        SEVERAL
    )
    assert len(SEVERAL) > 30


@pytest.mark.parametrize("path", sorted(SEVERAL))
def test_the_error_names_the_true_key_and_all_the_forms(path):
    value = "nonsense" if not {"a text", "a name"} & set(SEVERAL[path]) else 1.5
    error = refused(path, value)
    assert error.key == path
    if "auto, or an integer from 2 to" in error.rule or "whole number of epochs" in error.rule:
        return  # a rule of the key's own, which says it better
    for form in SEVERAL[path]:
        assert form in error.rule, (form, error.rule)
    assert "more such errors" not in error.rule


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("attacks.adaptive", "maybe", "must be true, false or 'auto'"),
        ("runtime.threads", "many", "must be a whole number or 'auto'"),
        ("release.clip", "big", "must be a number or a section of quantile, epsilon, lowest, highest"),
        ("release.clip", -1, "input should be greater than 0"),
        ("dataset.limit", "few", "must be a whole number or null"),
        ("dataset.limit", 0, "input should be greater than or equal to 1"),
        ("defense", 3, "must be a name or a section of name, options"),
        ("privacy.delta", [1], "must be a number or 'auto'"),
    ],
)
def test_forms_are_told_apart_from_bounds(path, value, rule):
    error = refused(path, value)
    assert (error.key, error.rule) == (path, rule)


def test_what_is_inside_a_form_keeps_its_own_name():
    assert refused("release.clip", {"quantile": 2, "epsilon": 1}).key == "release.clip.quantile"
    missing = refused("release.clip", {"quantile": 0.5})
    assert (missing.key, missing.rule) == ("release.clip.epsilon", "is required")
    unknown = refused("release.clip", {"epsilon": 1, "lowst": 1})
    assert (unknown.key, unknown.rule) == ("release.clip.lowst", "is not a known key")
    assert "lowest" in unknown.remedy
    assert refused("attacks.attribute", ["mlp", 3]).key == "attacks.attribute.1"
    assert refused("dataset.options", {"csv": {"a": 1}}).key == "dataset.options.csv"
