"""Where the tail begins with a matched filter: by itself where noise is shaped; what a cloud is told."""

from __future__ import annotations

import hashlib
import json

import pytest

from privhier.config import RunConfig, parse_config, read_config
from privhier.config.network import NOISE_SHAPING
from privhier.config.shared import load_shared, shared_part
from privhier.defenses.base import defenses
from privhier.errors import ConfigError
from privhier.training.commons import training_key

NEWER = ("threads", "device", "channels_last", "resident", "compile")
"""Keys of the runtime that no hash of a default knows."""
MAP = {"kind": "channels", "size": 4}
SUM = {"name": "sum", "options": {"parts": ["max_entropy", {"name": "gain", "options": {"weight": 0.3}}]}}


@pytest.fixture
def made(small_config):
    def make(defense="gain", bottleneck=MAP, **model) -> RunConfig:
        chosen = defense if isinstance(defense, dict) else {"name": defense}
        whole = {"kind": "none", "size": None} if bottleneck is None else bottleneck
        release = {}
        if whole["kind"] == "letters":
            release = {"mechanism": "randomized_response", "target_epsilon": 6.0}
        return small_config(defense=chosen, model={"bottleneck": whole, **model}, release=release)

    return make


def test_every_defense_that_shapes_noise_is_one():
    assert set(NOISE_SHAPING) <= set(defenses.names())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, True),
        ({"bottleneck": None}, True),
        ({"defense": SUM}, True),
        ({"defense": {"name": "sum", "options": {"parts": ["gain"]}}}, True),
        ({"defense": {"name": "sum", "options": {"parts": "gain"}}}, False),
        ({"defense": "none"}, False),
        ({"defense": "max_entropy"}, False),
        ({"bottleneck": {"kind": "dimension", "size": 4}}, False),
        ({"matched_filter": False}, False),
        ({"defense": "none", "matched_filter": True}, True),
        ({"bottleneck": {"kind": "dimension", "size": 4}, "matched_filter": True}, False),
        (
            {
                "defense": "none",
                "bottleneck": {"kind": "letters", "size": 1, "letters": 4},
                "matched_filter": True,
            },
            False,
        ),
    ],
)
def test_where_it_stands(made, arguments, expected):
    config = made(**arguments)
    assert config.matched_filter is expected
    assert shared_part(config).matched_filter is expected
    assert parse_config(config.model_dump(mode="json")) == config


def test_a_default_that_changes_nothing_is_in_no_hash_and_no_file(made):
    for config in (made("none"), made("none", matched_filter=False), made(matched_filter=False)):
        data = config.model_dump(mode="json")
        data["model"].pop("matched_filter", None)
        for key, section in (("noise_seed", "privacy"), ("warmup_epochs", "edge"), ("adaptive", "attacks")):
            if key != "warmup_epochs" or not config.warmup_epochs:
                del data[section][key]
        if config.attacks.adapts(defended=config.defense.name != "none"):
            data["attacks"]["adaptive"] = True
        for key in ("report", "tracking", "link"):
            del data[key]
        for section, keys in (("dataset", ("root", "cache")), ("runtime", NEWER)):
            for key in keys:
                del data[section][key]
        before = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        assert config.hash() == before
    assert "matched_filter" not in made().to_yaml() + made("none").to_yaml()
    assert "matched_filter" not in shared_part(made("none")).to_yaml()


def test_hashes_tell_tails_apart_and_nothing_else(made):
    for hashed in (RunConfig.hash, training_key, lambda config: shared_part(config).hash()):
        assert hashed(made()) == hashed(made(matched_filter=True)) != hashed(made(matched_filter=False))
        assert hashed(made("none")) == hashed(made("none", matched_filter=False))
        assert hashed(made("none")) != hashed(made("none", matched_filter=True))
    assert shared_part(made()) == shared_part(made("none", matched_filter=True))


def test_the_defense_decides_anew_where_a_resolved_configuration_is_changed(made, tmp_path):
    (tmp_path / "run.yaml").write_text(made("none").to_yaml())
    changed = parse_config(read_config(tmp_path / "run.yaml", ["defense.name=gain"]))
    assert changed == made()
    assert changed.matched_filter


def test_a_cloud_is_told_by_either_file_and_learns_no_defense(made, tmp_path):
    (tmp_path / "run.yaml").write_text(made().to_yaml())
    (tmp_path / "shared.yaml").write_text(shared_part(made()).to_yaml())
    one, other = (load_shared(tmp_path / f"{name}.yaml") for name in ("run", "shared"))
    assert one == other
    assert one.matched_filter
    assert "gain" not in (tmp_path / "shared.yaml").read_text()


@pytest.mark.parametrize("value", ["perhaps", 3, None])
def test_anything_else_is_refused(made, value):
    with pytest.raises(ConfigError, match=r"model\.matched_filter"):
        made(matched_filter=value)
