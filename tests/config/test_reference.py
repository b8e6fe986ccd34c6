"""What ``privhier config`` and the reference say of keys and options."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, Field

from privhier.attacks.base import attacks
from privhier.attacks.embedders.base import embedders
from privhier.attacks.membership.base import membership_attacks
from privhier.attacks.threat_models import THREAT_MODELS
from privhier.config import RunConfig, load_config, parse_config
from privhier.config.attacks import ADAPTIVE, ADAPTIVE_VERIFICATION
from privhier.config.choices import option
from privhier.config.letters import AUTO, AUTO_WITHOUT_NOISE
from privhier.config.network import NOISE_SHAPING
from privhier.config.reference import defaults, find, options_of, reference
from privhier.config.shared import SharedConfig
from privhier.datasets.registry import datasets
from privhier.defenses.base import defenses
from privhier.errors import ConfigError, PrivhierWarning
from privhier.models.layout import FASTEST
from privhier.models.staged import backbones

LEAST = {
    "name": "x",
    "dataset": {"name": "synthetic", "task": ["a"], "sensitive": ["b"]},
    "schedule": {"cloud_epochs": 1},
}
KEYS = {key.path: key for key in reference()}


@pytest.mark.parametrize("path", KEYS)
def test_every_key_says_what_it_means(path):
    assert len(KEYS[path].meaning) >= 4, path
    assert KEYS[path].type


def test_a_key_without_docstring_is_seen():
    class Silent(BaseModel):
        width: int = Field(3, ge=1)

    (key,) = reference(Silent)
    assert (key.meaning, key.rule, key.default) == ("", "at least 1", "3")


def test_all_keys_of_a_written_configuration_are_explained(repository):
    def paths(data, prefix=""):
        for name, value in data.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict) and name != "options":
                yield from paths(value, f"{prefix}{name}.")

    config = load_config(repository / "configs" / "utkface_gender_race_dp_sgd.yaml")
    chosen = {"defense.name", "defense.options"}
    assert set(paths(config.model_dump(mode="json"))) - chosen <= set(KEYS)


def test_types_rules_and_defaults_in_words():
    assert KEYS["release.mechanism"].type.startswith("one of none, gaussian, laplace")
    assert KEYS["dataset.limit"].type == "whole number, or null"
    assert KEYS["evaluation.confidence"].rule == "above 0.5, below 1"
    assert KEYS["dataset.name"].default == "(required)"
    assert KEYS["attacks.threat_models"].rule == "not empty"
    assert KEYS["release"].is_section
    assert not KEYS["release.clip"].is_section
    assert KEYS["release.clip.epsilon"].default == "(required)"


def test_defaults_are_those_of_the_sections():
    from yaml import safe_load

    made = safe_load(defaults())
    config = parse_config(LEAST).model_dump(mode="json")
    for section in ("release", "privacy", "edge", "training", "evaluation", "report", "link"):
        assert made[section] == config[section], section
    assert safe_load(defaults("release.quantize")) == {"release": {"quantize": "float32"}}


def test_a_section_holds_its_keys_and_an_unknown_key_is_answered():
    assert [key.path for key in find("schedule")][:2] == ["schedule", "schedule.pretrain_epochs"]
    with pytest.raises(ConfigError, match=r"Did you mean dataset\.limit\?"):
        find("limit")
    with pytest.raises(ConfigError, match=r"dataset\.limit"):
        find("limt")
    with pytest.raises(ConfigError, match="See privhier config"):
        find("xyzzy")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("limit", "dataset.limit"), ("backbone", "model.backbone"), ("dp_sgd", "edge.dp_sgd")],
)
def test_a_key_at_the_top_that_belongs_into_a_section_is_told(wrong, right):
    with pytest.raises(ConfigError, match=rf"Did you mean {right}\?"):
        parse_config({**LEAST, wrong: 1})


@pytest.mark.parametrize("registry", [attacks, defenses, datasets], ids=lambda one: one.kind)
def test_every_option_of_everything_registered_says_what_it_means(registry):
    for name in registry.names():
        fixed = ("target",) if registry is attacks else ()
        for key in options_of(registry.get(name), fixed):
            assert key.meaning, f"{registry.kind} {name}: {key.path}"


def test_options_of_a_dataclass_are_read_off_its_docstring():
    @dataclass(frozen=True)
    class Pencil:
        """Draws.

        Attributes:
            width: Of the line,
                in pixels.

        Ends here.
        """

        width: int = option(2, low=1, high=9)

    (key,) = options_of(Pencil)
    assert (key.meaning, key.rule, key.default) == ("Of the line, in pixels.", "at least 1, at most 9", "2")


@pytest.mark.parametrize(
    ("name", "override", "dropped"),
    [
        ("debug", "release.target_epsilon=4", "release.sigma"),
        ("utkface_gender_race_dp_sgd", "edge.dp_sgd.noise_multiplier=1.5", "edge.dp_sgd.target_epsilon"),
    ],
)
def test_an_override_drops_the_rival_of_the_file_and_says_so(repository, name, override, dropped):
    path = repository / "configs" / f"{name}.yaml"
    with pytest.warns(PrivhierWarning, match=rf"{dropped}: .* is dropped: {override.partition('=')[0]}"):
        config = load_config(path, [override])
    value = config.model_dump()
    for part in dropped.split("."):
        value = value[part]
    assert value is None


def test_a_rival_that_the_command_empties_itself_is_not_worth_a_word(repository):
    path = repository / "configs" / "debug.yaml"
    config = load_config(path, ["release.sigma=null", "release.target_epsilon=4"])
    assert (config.release.sigma, config.release.target_epsilon) == (None, 4.0)


def test_two_rivals_in_one_command_are_still_refused(repository):
    with pytest.raises(ConfigError, match="exactly one"):
        load_config(repository / "configs/debug.yaml", ["release.target_epsilon=4", "release.sigma=1"])


def test_the_configuration_is_what_the_reference_was_made_of():
    assert set(RunConfig.model_fields) == {path for path in KEYS if "." not in path}


INSIDE = re.compile(r"``[A-Z][A-Z_]{2,}``|(?<![$A-Z_])[A-Z]{2,}_[A-Z_]{2,}|privhier\.[a-z_]+\.|\w+\.py\b")
"""Names in the source, which say nothing to who writes a configuration; $VARIABLES of the system do."""


def explained():
    for model in (RunConfig, SharedConfig):
        for key in reference(model):
            yield f"{model.__name__} {key.path}", key.meaning
    for registry in (attacks, membership_attacks, datasets, defenses, backbones, embedders):
        for name in registry.names():
            entry = registry.get(name)
            keys = options_of(entry, ("target",)) if isinstance(entry, type) else []
            for key in keys:
                yield f"{name} {key.path}", key.meaning


def test_no_meaning_points_into_the_source():
    meanings = dict(explained())
    assert len(meanings) > 250
    assert {where: text for where, text in meanings.items() if INSIDE.search(text)} == {}


@pytest.mark.parametrize("text", ["see ``ADAPTIVE``", "up to MOST_CLASSES", "privhier.models.layout", "a.py"])
def test_what_points_into_the_source_is_seen(text):
    assert INSIDE.search(text)
    assert not INSIDE.search("under ``$PRIVHIER_DATA``, by DP-SGD, an AUC, ``privhier list attacks``.")


def test_what_meanings_say_of_constants_is_what_these_hold():
    adaptive, letters = KEYS["attacks.adaptive"].meaning, KEYS["model.bottleneck.letters"].meaning
    assert all(f"``{name}``" in adaptive for name in (*ADAPTIVE, *ADAPTIVE_VERIFICATION))
    assert f"an answer: {AUTO[0][1]} letters, {AUTO[1][1]} from an epsilon of {AUTO[1][0]:g} on" in letters
    assert all(f", {count} from {least:g}" in letters for least, count in AUTO[2:])
    assert f"; {AUTO_WITHOUT_NOISE} where nothing is answered at random" in letters
    assert all(f"``{name}``" in KEYS["attacks.threat_models"].meaning for name in THREAT_MODELS)
    assert all(f"``{name}``" in KEYS["model.matched_filter"].meaning for name in NOISE_SHAPING)
    layouts = KEYS["runtime.channels_last"].meaning
    assert {("cpu", "small_cnn")} == FASTEST, "say the others in the key's meaning as well"
    assert "(``small_cnn`` on a CPU)" in layouts
