"""The shared part of a configuration: what is in it, what is not, and what its hash depends on."""

from __future__ import annotations

import json

import pytest
import yaml

from privhier.config import RunConfig, load_config, parse_config
from privhier.config.shared import SharedConfig, load_shared, shared_part
from privhier.errors import ConfigError

FULL = {
    "name": "clinic-7",
    "seed": 3,
    "dataset": {
        "name": "synthetic",
        "root": "somewhere/private",
        "cache": "elsewhere/cache",
        "image_size": 32,
        "crop": "mtcnn",
        "limit": 1234567,
        "min_images_per_identity": 2,
        "task": ["smiling", "glasses"],
        "sensitive": ["male", "hat==0"],
        "identity_protocol": "known_people",
        "splits": {"train": 0.4, "val": 0.2, "aux": 0.2, "test": 0.2},
        "options": {"images": 400, "secret_option": "x"},
    },
    "model": {"backbone": "vgg11", "cut": "stage3", "bottleneck": {"kind": "dimension", "size": 8}},
    "schedule": {"pretrain_epochs": 1, "joint_epochs": 2, "cloud_epochs": 3},
    "release": {"mechanism": "gaussian", "sigma": 0.5, "clip": 2.0, "quantize": "int8"},
    "privacy": {"label_epsilon": 2.0, "noise_seed": 987654321, "delta": 1e-6},
    "edge": {"dp_sgd": {"noise_multiplier": 1.75}},
    "defense": {"name": "gradient_reversal", "options": {"weight": 0.625}},
    "training": {
        "batch_size": 48,
        "edge": {"lr": 0.0123},
        "cloud": {"lr": 0.0321, "name": "sgd"},
        "augment": {"shift": 5},
    },
    "attacks": {"draws": 11},
    "evaluation": {"bootstrap": 321},
    "tracking": {"experiment": "ward"},
    "link": {"queue": 9},
    "runtime": {"threads": 2, "device": "cpu"},
}


def changed(path: str, value: object) -> RunConfig:
    data = json.loads(json.dumps(FULL))
    *parents, last = path.split(".")
    section = data
    for parent in parents:
        section = section[parent]
    section[last] = value
    return parse_config(data)


BASE = shared_part(parse_config(FULL))

PRIVATE = {
    "dataset.name": "utkface",
    "dataset.root": None,
    "dataset.cache": None,
    "dataset.crop": "none",
    "dataset.limit": None,
    "dataset.min_images_per_identity": 1,
    "dataset.sensitive": ["male"],
    "dataset.identity_protocol": "unknown_people",
    "dataset.splits": {},
    "dataset.options": {},
    "privacy.noise_seed": None,
    "privacy.delta": "auto",
    "edge.dp_sgd": None,
    "defense": "none",
    "training.edge": {},
    "training.augment": {},
    "attacks": {},
    "evaluation": {},
    "report": {"pictures": "none"},
    "tracking": {},
    "link": {},
    "runtime": {"threads": 1, "device": "auto"},
}
SHARED = {
    "name": "clinic-8",
    "seed": 4,
    "dataset.image_size": 48,
    "dataset.task": ["glasses", "smiling"],
    "model.backbone": "small_cnn",
    "model.cut": "stage2",
    "model.norm": "batch",
    "model.stem": "torchvision",
    "model.weights": "weights/vgg11.pth",
    "model.bottleneck": {"kind": "channels", "size": 8},
    "model.exit_hidden": 8,
    "model": {"bottleneck": {"kind": "channels", "size": 8}, "matched_filter": True},
    "schedule.pretrain_epochs": 2,
    "schedule.joint_epochs": 1,
    "schedule.cloud_epochs": 0,
    "release.mechanism": "laplace",
    "release.clip": 1.0,
    "release.sigma": 0.25,
    "release.quantize": "float32",
    "release": {"target_epsilon": 8, "mechanism": "gaussian", "clip": {"quantile": 0.5, "epsilon": 1}},
    "privacy.label_epsilon": None,
    "privacy": {"noise_source": "system", "label_epsilon": 2.0},
    "training.batch_size": 49,
    "training.cloud.lr": 0.03,
    "training.cloud.name": "adam",
    "training.cloud.weight_decay": 0.0,
    "training.cloud.momentum": 0.5,
    "training.cloud.schedule": "constant",
}


@pytest.mark.parametrize("path", PRIVATE)
def test_a_private_key_leaves_the_shared_part_and_its_hash(path):
    other = changed(path, PRIVATE[path])
    assert other != parse_config(FULL)
    assert shared_part(other) == BASE
    assert shared_part(other).hash() == BASE.hash()


@pytest.mark.parametrize("path", SHARED)
def test_a_shared_key_changes_the_hash_and_the_run_id(path):
    other = shared_part(changed(path, SHARED[path]))
    assert other.hash() != BASE.hash()
    assert other.run_id != BASE.run_id


def leaves(model: type, prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        deeper = isinstance(inner, type) and hasattr(inner, "model_fields") and name != "defense"
        found |= leaves(inner, f"{prefix}{name}.") if deeper else {prefix + name}
    return found


def test_every_key_of_a_run_is_either_private_or_shared():
    """A key added to the configuration has to be put on one side here."""
    sided = {*PRIVATE, *SHARED, "privacy.noise_source", "release.target_epsilon", "model.matched_filter"}
    sided |= {f"model.bottleneck.{key}" for key in ("kind", "size", "letters", "groups", "fit")}
    whole = {"attacks", "evaluation", "report", "tracking", "link", "runtime", "edge", "defense"}
    whole |= {"training.edge", "training.augment", "dataset.splits", "dataset.options"}
    unsided = {
        leaf
        for leaf in leaves(RunConfig)
        if leaf not in sided and not any(leaf.startswith(f"{part}.") for part in whole)
    }
    assert unsided == set()


def test_the_hash_does_not_depend_on_the_noise_seed():
    hashes = {shared_part(changed("privacy.noise_seed", n)).hash() for n in (None, *range(300), 2**40)}
    assert hashes == {BASE.hash()}


def test_the_file_for_the_cloud_holds_no_private_key_and_no_private_value():
    text = BASE.to_yaml()
    assert yaml.safe_load(text).keys() == SharedConfig.model_fields.keys()
    keys = "dataset sensitive root cache limit options splits noise_seed delta defense edge dp_sgd augment"
    for word in (*keys.split(), "attacks", "evaluation", "tracking", "runtime", "link"):
        assert f"{word}:" not in text
    values = "somewhere elsewhere 1234567 male hat 987654321 1.75 gradient_reversal 0.625 0.0123 known_people"
    for word in (*values.split(), "ward", "secret", "mtcnn", "synthetic"):
        assert word not in text


def test_both_kinds_of_file_give_the_same_shared_part(tmp_path):
    whole, part = tmp_path / "whole.yaml", tmp_path / "part.yaml"
    whole.write_text(parse_config(FULL).to_yaml())
    part.write_text(BASE.to_yaml())
    assert load_shared(whole) == load_shared(part) == BASE
    assert load_shared(whole, ["release.sigma=0.75"]) == load_shared(part, ["release.sigma=0.75"])
    assert load_shared(whole, ["dataset.task=[hat]"]) == load_shared(part, ["task=[hat]"])
    assert load_shared(whole, ["dataset.task=[hat]"]).hash() != BASE.hash()


def test_a_drawn_clip_bound_survives_the_file(tmp_path):
    shared = shared_part(changed("release", SHARED["release"]))
    (tmp_path / "part.yaml").write_text(shared.to_yaml())
    assert load_shared(tmp_path / "part.yaml").hash() == shared.hash()


def test_every_shipped_configuration_has_a_shared_part_of_its_own(repository, tmp_path):
    hashes = set()
    for path in sorted((repository / "configs").glob("*.yaml")):
        shared = shared_part(load_config(path))
        (tmp_path / path.name).write_text(shared.to_yaml())
        assert load_shared(tmp_path / path.name) == load_shared(path) == shared
        hashes.add(shared.hash())
    assert len(hashes) == len(list((repository / "configs").glob("*.yaml")))


def test_a_weights_file_may_lie_elsewhere_on_the_other_machine():
    here = shared_part(changed("model.weights", "here/vgg11.pth"))
    there = shared_part(changed("model.weights", "there/deep/vgg11.pth"))
    assert here.hash() == there.hash()
    assert here.model.weights == "here/vgg11.pth"
    assert here.hash() != shared_part(changed("model.weights", "here/vgg13.pth")).hash()


def test_the_hash_is_hexadecimal_and_the_run_id_says_nothing_else():
    assert len(BASE.hash()) == 64
    assert int(BASE.hash(), 16) > 0
    assert BASE.hash().startswith(BASE.run_id)
    assert len(BASE.run_id) == 16


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (["noise_seed=3"], "noise_seed", "is not a known key"),
        (["privacy.noise_seed=3"], "privacy.noise_seed", "is not a known key"),
        (["dataset.root=x"], "dataset", "is not a known key"),
        (["release.sgima=3"], "release.sgima", "Did you mean sigma"),
        (["image_size=2"], "image_size", "greater than or equal to 16"),
        (["privacy.label_epsilon=31"], "privacy.label_epsilon", "less than or equal to 30"),
        (["batch_size"], "override", "must read key.path=value"),
    ],
)
def test_refusals_speak_of_the_shared_file(tmp_path, change, key, words):
    (tmp_path / "part.yaml").write_text(BASE.to_yaml())
    with pytest.raises(ConfigError) as caught:
        load_shared(tmp_path / "part.yaml", change)
    assert caught.value.key == key
    assert words in str(caught.value)


def test_other_files_are_refused_as_configurations_are(tmp_path):
    with pytest.raises(ConfigError, match="must be a readable YAML file"):
        load_shared(tmp_path / "none.yaml")
    (tmp_path / "other.yaml").write_text("name: x\nschedule: {joint_epochs: 1}\n")
    with pytest.raises(ConfigError, match="dataset: None - is required"):
        load_shared(tmp_path / "other.yaml")
    (tmp_path / "list.yaml").write_text("- image_size\n- task\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_shared(tmp_path / "list.yaml")
