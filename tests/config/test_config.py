"""Configuration: what is accepted, and what every refusal says."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import yaml

from privhier.config import Choice, load_config, parse_config
from privhier.errors import ConfigError


def minimal(**changes):
    data = {
        "name": "t",
        "dataset": {"name": "synthetic", "task": ["smiling"], "sensitive": ["male"]},
        "schedule": {"joint_epochs": 1},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return data


def test_every_shipped_config_parses_and_round_trips(repository):
    paths = sorted((repository / "configs").glob("*.yaml"))
    assert len(paths) >= 9
    for path in paths:
        config = load_config(path)
        assert config.name == path.stem
        assert parse_config(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"model__backbon": "vgg11"}, "model.backbon", ["not a known key", "backbone"]),
        ({"seed": "many"}, "seed", ["integer"]),
        ({"schedule": {}}, "schedule", ["joint_epochs or cloud_epochs", "above 0"]),
        ({"dataset__task": []}, "dataset.task", ["at least 1"]),
        ({"dataset__sensitive": ["smiling"]}, "dataset", ["only once"]),
        ({"dataset__task": ["identity"]}, "dataset", ["never a task"]),
        ({"dataset__splits": {"train": 0.9}}, "dataset.splits", ["sum to 1"]),
        ({"release__mechanism": "gaussian"}, "release", ["exactly one of sigma and target_epsilon"]),
        ({"release": {"sigma": 0.3}}, "release", ["neither sigma nor target_epsilon"]),
        (
            {"release": {"mechanism": "gaussian", "target_epsilon": 0}},
            "release.target_epsilon",
            ["greater than 0"],
        ),
        (
            {"release": {"mechanism": "gaussian", "target_epsilon": -1}},
            "release.target_epsilon",
            ["greater than 0"],
        ),
        ({"release": {"mechanism": "gaussian", "sigma": float("nan")}}, "release.sigma", ["finite"]),
        ({"model__bottleneck": {"kind": "dimension"}}, "model.bottleneck", ["exactly when"]),
        ({"runtime__threads": 0}, "runtime.threads", ["at least 1"]),
        ({"privacy__delta": 1}, "privacy.delta", ["between 0 and 1"]),
        ({"privacy__noise_seed": -1}, "privacy.noise_seed", ["greater than or equal to 0"]),
        ({"privacy": {"noise_seed": 5, "noise_source": "system"}}, "privacy", ["no use", "'system'"]),
        ({"link__queue": 0}, "link.queue", ["greater than or equal to 1"]),
        ({"link__queue": 1025}, "link.queue", ["less than or equal to 1024"]),
        ({"link__spool_mib": 0}, "link.spool_mib", ["greater than or equal to 1"]),
        ({"link__retry_seconds": 0}, "link.retry_seconds", ["greater than 0"]),
        ({"link__retry_seconds": 3601}, "link.retry_seconds", ["less than or equal to 3600"]),
        ({"link__depth": 2}, "link.depth", ["not a known key", "queue"]),
        ({"name": "a/b"}, "name", ["pattern"]),
    ],
)
def test_refusals_name_key_value_rule_and_remedy(changes, key, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(minimal(**changes))
    error = caught.value
    assert error.key == key
    assert error.remedy
    for word in words:
        assert word in str(error)
    assert error.exit_code == 2


def test_missing_section_is_named():
    data = minimal()
    del data["dataset"]
    with pytest.raises(ConfigError, match="dataset: None - is required"):
        parse_config(data)


def test_all_errors_are_counted():
    with pytest.raises(ConfigError, match="1 more such error"):
        parse_config(minimal(seed="x", name="a b"))


def test_overrides_reach_nested_keys_and_change_the_hash(repository):
    path = repository / "configs" / "debug.yaml"
    plain, changed = load_config(path), load_config(path, ["release.sigma=0.5", "dataset.task=[glasses]"])
    assert changed.release.sigma == 0.5
    assert changed.dataset.task == ["glasses"]
    assert plain.hash() != changed.hash()


def test_another_name_by_override_drops_the_old_names_options(repository):
    path = repository / "configs" / "debug.yaml"
    assert load_config(path).defense.options
    assert load_config(path, ["defense.name=none"]).defense.options == {}
    assert load_config(path, ["defense.name=gradient_reversal"]).defense == load_config(path).defense


def test_hash_ignores_paths_tracking_and_what_only_changes_last_digits():
    base = parse_config(minimal(runtime__threads=2))
    assert parse_config(minimal(runtime__threads=2, dataset__root="/x")).hash() == base.hash()
    assert parse_config(minimal(runtime__threads=2, tracking__enabled=False)).hash() == base.hash()
    assert parse_config(minimal(runtime__threads=2, report__pictures="none")).hash() == base.hash()
    assert parse_config(minimal(runtime__threads=1)).hash() == base.hash()
    assert parse_config(minimal(runtime__device="cpu")).hash() == base.hash()
    assert parse_config(minimal(runtime__channels_last=True)).hash() == base.hash()
    assert parse_config(minimal(runtime__resident=True)).hash() == base.hash()
    assert parse_config(minimal(runtime__precision="bfloat16")).hash() != base.hash()
    assert parse_config(minimal(runtime__compile=True)).hash() != base.hash()


def test_hash_ignores_the_link_and_knows_the_noise_seed():
    base = parse_config(minimal(runtime__threads=2))
    link = {"queue": 1, "spool_mib": 2, "retry_seconds": 0.5}
    assert parse_config(minimal(runtime__threads=2, link=link)).hash() == base.hash()
    hashes = {parse_config(minimal(runtime__threads=2, privacy__noise_seed=n)).hash() for n in (None, 0, 1)}
    assert base.hash() in hashes
    assert len(hashes) == 3


def test_a_run_without_a_noise_seed_has_the_hash_it_had_before_the_key_existed():
    data = parse_config(minimal(runtime__threads=2)).model_dump(mode="json")
    for section, key in (
        ("dataset", "root"),
        ("dataset", "cache"),
        ("privacy", "noise_seed"),
        ("edge", "warmup_epochs"),
        ("attacks", "adaptive"),
    ):
        del data[section][key]
    del data["tracking"], data["link"], data["report"]
    for key in ("threads", "device", "channels_last", "resident", "compile"):
        del data["runtime"][key]
    wanted = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    assert parse_config(minimal(runtime__threads=2)).hash() == wanted


def test_what_is_published_of_a_configuration_leaves_the_noise_seed_out_and_runs_nowhere():
    config = parse_config(minimal(seed=7, privacy__noise_seed=987654321))
    assert "987654321" in config.to_yaml()
    published = config.to_publish()
    assert "987654321" not in json.dumps(published)
    with pytest.raises(ConfigError, match=r"privacy\.noise_seed"):
        parse_config(published)
    plain = parse_config(minimal(seed=7))
    assert plain.to_publish() == plain.model_dump(mode="json")


def test_private_draws_have_the_runs_seed_unless_they_have_their_own():
    assert parse_config(minimal(seed=7)).noise_seed == 7
    assert parse_config(minimal(seed=7, privacy__noise_seed=0)).noise_seed == 0


def test_auto_threads_are_resolved_to_a_number():
    assert isinstance(parse_config(minimal(runtime__threads="auto")).runtime.threads, int)


@pytest.mark.parametrize(
    ("n", "delta"),
    [
        (3, 1e-5),
        (300, 1e-5),
        (10_000, 1e-5),
        (10_001, 1e-6),
        (99_999, 1e-6),
        (100_000, 1e-6),
        (100_001, 1e-7),
    ],
)
def test_delta_is_the_largest_power_of_ten_at_most_a_tenth_of_one_over_n_unless_it_is_given(n, delta):
    assert parse_config(minimal()).privacy.delta_for(n) == delta
    assert n * delta <= 0.1 * (1 + 1e-12)
    assert delta == 1e-5 or n * 10 * delta > 0.1
    assert parse_config(minimal(privacy__delta=0.01)).privacy.delta_for(n) == 0.01


def test_a_bare_name_is_a_choice():
    assert Choice.model_validate("none") == Choice(name="none")


@pytest.mark.parametrize("override", ["sigma", "=3"])
def test_malformed_override(repository, override):
    with pytest.raises(ConfigError, match=r"must read key\.path=value"):
        load_config(repository / "configs" / "debug.yaml", [override])


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="must be a readable YAML file"):
        load_config(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(broken)
    listing = tmp_path / "list.yaml"
    listing.write_text("- 1\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_config(listing)


def test_releases_per_record_of_the_three_regimes():
    def releases(pretrain, joint, cloud):
        schedule = {"pretrain_epochs": pretrain, "joint_epochs": joint, "cloud_epochs": cloud}
        return parse_config(minimal(schedule=schedule)).schedule.releases_per_record

    assert releases(0, 30, 0) == 30
    assert releases(5, 30, 0) == 30
    assert releases(5, 0, 30) == 1


def test_auto_threads_are_those_of_the_cpu_set(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert parse_config(minimal(runtime__threads="auto")).runtime.threads == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert parse_config(minimal(runtime__threads="auto")).runtime.threads == 64
