"""Letters in the configuration: which keys go together, which are refused and why; other hashes stay."""

from typing import get_args

import pytest

from privhier.config import BottleneckConfig, parse_config
from privhier.config.letters import AUTO
from privhier.config.privacy import LETTER_MECHANISMS, ORDERED_MOST
from privhier.config.shared import load_shared, shared_part
from privhier.errors import ConfigError
from privhier.privacy.channels import CHANNELS, TruncatedGeometric

LETTERS = {"kind": "letters", "size": 1, "letters": 16}
RESPONSE = {"mechanism": "randomized_response", "target_epsilon": 8.0}
FITTED = {"pretrain_epochs": 2, "cloud_epochs": 2}


def data(bottleneck=LETTERS, release=RESPONSE, schedule=FITTED, **more):
    return {
        "name": "letters",
        "dataset": {"name": "synthetic", "task": ["smile"], "sensitive": ["male"]},
        "model": {"bottleneck": bottleneck},
        "schedule": schedule,
        "release": release,
        **more,
    }


def test_letters_are_read_and_written_back():
    config = parse_config(data({**LETTERS, "size": 4, "groups": 3, "fit": "kmeans"}))
    chosen = config.model.bottleneck
    assert (chosen.size, chosen.letters, chosen.groups, chosen.fit) == (4, 16, 3, "kmeans")
    assert config.release.of_letters
    assert parse_config(config.model_dump(mode="json")) == config
    assert parse_config(data()).model.bottleneck.groups == 1


@pytest.mark.parametrize("mechanism", [*LETTER_MECHANISMS, "none"])
def test_every_channel_and_none_take_letters(mechanism):
    release = {**RESPONSE, "mechanism": mechanism} if mechanism != "none" else {}
    assert parse_config(data(release=release)).release.mechanism == mechanism


def test_the_names_are_those_of_the_channels():
    assert sorted(LETTER_MECHANISMS) == sorted(CHANNELS)
    TruncatedGeometric(ORDERED_MOST, 1.0)


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (
            {"bottleneck": {**LETTERS, "letters": 1}},
            "model.bottleneck.letters",
            ["from 2 to 4096"],
        ),
        ({"bottleneck": {**LETTERS, "letters": 4097}}, "model.bottleneck.letters", ["4096"]),
        ({"bottleneck": {**LETTERS, "groups": 0}}, "model.bottleneck.groups", ["greater than or equal to 1"]),
        ({"bottleneck": {**LETTERS, "fit": "means"}}, "model.bottleneck.fit", ["quantiles", "kmeans"]),
        ({"bottleneck": {"kind": "letters", "size": 1}}, "model.bottleneck", ["letters is given exactly"]),
        ({"bottleneck": {"kind": "letters", "letters": 4}}, "model.bottleneck", ["size is given exactly"]),
        (
            {"bottleneck": {"kind": "dimension", "size": 1, "letters": 4}},
            "model.bottleneck",
            ["letters is given exactly when kind is 'letters'"],
        ),
        (
            {"bottleneck": {"kind": "dimension", "size": 1, "groups": 2}, "release": {}},
            "model.bottleneck",
            ["for kind 'letters' only"],
        ),
        ({"bottleneck": {"kind": "none", "fit": "kmeans"}, "release": {}}, "model.bottleneck", ["only"]),
        (
            {"bottleneck": {**LETTERS, "size": 2, "fit": "quantiles"}},
            "model.bottleneck",
            ["letters of one value"],
        ),
        (
            {"bottleneck": {"kind": "dimension", "size": 4}},
            "CONFIG",
            ["randomized_response", "model.bottleneck.kind=letters"],
        ),
        (
            {"release": {"mechanism": "gaussian", "target_epsilon": 8.0}},
            "CONFIG",
            ["'gaussian' is for features", "subset_selection"],
        ),
        ({"release": {"mechanism": "laplace", "sigma": 1.0}}, "CONFIG", ["for features"]),
        ({"release": {"clip": 2.0}}, "CONFIG", ["neither clipped nor quantized"]),
        ({"release": {"quantize": "int8"}}, "CONFIG", ["neither clipped nor quantized"]),
        ({"release": {**RESPONSE, "clip": 2.0}}, "release", ["neither clipped nor quantized"]),
        ({"release": {**RESPONSE, "quantize": "int8"}}, "release", ["neither clipped nor quantized"]),
        ({"release": {"mechanism": "randomized_response"}}, "release", ["takes target_epsilon"]),
        ({"release": {**RESPONSE, "sigma": 0.3}}, "release", ["no sigma"]),
        ({"release": {**RESPONSE, "target_epsilon": 31}}, "release", ["at most 30"]),
        ({"release": {**RESPONSE, "target_epsilon": 0}}, "release.target_epsilon", ["greater than 0"]),
        (
            {"release": {**RESPONSE, "mechanism": "random_response"}},
            "release.mechanism",
            ["subset_selection"],
        ),
        (
            {
                "bottleneck": {**LETTERS, "letters": 257},
                "release": {**RESPONSE, "mechanism": "truncated_geometric"},
            },
            "CONFIG",
            ["at most 256 letters"],
        ),
        ({"schedule": {"joint_epochs": 2}}, "CONFIG", ["pretrain_epochs must be at least 1", "learned"]),
        (
            {"bottleneck": {**LETTERS, "fit": "kmeans"}, "edge": {"dp_sgd": {"noise_multiplier": 1.0}}},
            "CONFIG",
            ["outside the mechanism", "learned"],
        ),
        (
            {"bottleneck": {**LETTERS, "fit": "quantiles"}, "edge": {"dp_sgd": {"target_epsilon": 4.0}}},
            "CONFIG",
            ["outside the mechanism", "learned"],
        ),
    ],
)
def test_refusals_name_key_rule_and_remedy(change, key, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(data(**change))
    assert caught.value.key == key
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("fit", get_args(BottleneckConfig.model_fields["fit"].annotation))
def test_under_dp_sgd_letters_are_learned(fit):
    """``auto`` is the learned fit there, which needs no epochs before it."""
    private = {"dp_sgd": {"noise_multiplier": 1.0}}
    bottleneck = {**LETTERS, "fit": fit}
    if fit in ("auto", "learned"):
        config = parse_config(data(bottleneck, schedule={"joint_epochs": 2}, edge=private))
        assert shared_part(config).model.bottleneck.fit == "learned"
    else:
        with pytest.raises(ConfigError, match="outside the mechanism"):
            parse_config(data(bottleneck, edge=private))


def test_the_cloud_is_told_the_alphabet_and_checks_the_same_rules(tmp_path):
    config = parse_config(data())
    path = tmp_path / "shared.yaml"
    path.write_text(shared_part(config).to_yaml())
    assert load_shared(path) == shared_part(config)
    assert load_shared(path).model.bottleneck.letters == 16
    for override in ("release.mechanism=laplace", "model.bottleneck.kind=dimension"):
        with pytest.raises(ConfigError):
            load_shared(path, [override])


def test_other_configurations_do_not_know_the_keys():
    """Their text and their hashes are what they were before there were letters."""
    attackers = ["logistic_regression", "gradient_boosting", "mlp", "cnn"]  # the default of then
    dimension = parse_config(
        data({"kind": "dimension", "size": 8}, release={}) | {"attacks": {"attribute": attackers}}
    )
    assert dimension.model_dump(mode="json")["model"]["bottleneck"] == {"kind": "dimension", "size": 8}
    assert "letters:" not in dimension.to_yaml()
    assert dimension.hash() == "5591ae81b190a64fa931146fa5db9fc4ca320bc0c93cebefc456d1ba0d97748a"
    assert shared_part(dimension).hash() == "1641b91d4b46adb1b84f12d181a10e224d3d2ba77c242308e0738334a8827f50"
    letters, more = parse_config(data()), parse_config(data({**LETTERS, "groups": 2}))
    assert letters.hash() != more.hash()
    assert shared_part(letters).hash() != shared_part(more).hash()


@pytest.mark.parametrize(
    ("epsilon", "releases", "groups", "letters"),
    [(8.0, 1, 1, 8), (8.0, 2, 1, 4), (8.0, 1, 4, 2), (1.0, 1, 1, 2), (2.25, 1, 1, 3), (30.0, 1, 1, 16)],
)
def test_auto_takes_the_letters_that_an_answers_epsilon_is_worth(epsilon, releases, groups, letters):
    schedule = {"pretrain_epochs": 1, "joint_epochs": releases - 1, "cloud_epochs": 1}
    config = parse_config(
        data(
            {**LETTERS, "letters": "auto", "groups": groups},
            release={**RESPONSE, "target_epsilon": epsilon},
            schedule=schedule,
        )
    )
    assert config.model.bottleneck.letters == config.model.bottleneck.alphabet == letters
    assert config.model.bottleneck.fit == ("posteriors" if groups == 1 else "kmeans")
    said = {**LETTERS, "letters": letters, "groups": groups}
    again = parse_config(data(said, release={**RESPONSE, "target_epsilon": epsilon}, schedule=schedule))
    assert again.hash() == config.hash()
    assert shared_part(config).model.bottleneck.letters == letters


def test_auto_without_noise_and_what_the_table_holds():
    config = parse_config(data({**LETTERS, "letters": "auto"}, release={"mechanism": "none"}))
    assert config.model.bottleneck.letters == 16
    rows = [least for least, _ in AUTO]
    assert rows[0] == 0.0
    assert rows == sorted(rows)
