"""Sweep files: what becomes a point, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from privhier.config import load_config
from privhier.errors import ConfigError
from privhier.sweeps.job import check_points
from privhier.sweeps.spec import load_sweep


def axis(**keys: object) -> dict[str, object]:
    return dict(keys)


def test_the_grid_is_every_combination_with_seeds_innermost(write_sweep, tmp_path):
    axes = [
        axis(key="release.sigma", values=[0.1, 0.2]),
        axis(
            name="width",
            variants={
                "narrow": {"model.bottleneck.size": 4},
                "open": {"model.bottleneck.kind": "none", "model.bottleneck.size": None},
            },
        ),
    ]
    points = load_sweep(write_sweep(tmp_path / "s.yaml", axes=axes, family="width")).points()
    assert len({point.config_hash for point in points}) == len(points) == 8
    assert [point.config.seed for point in points[:4]] == [0, 1, 0, 1]
    first, third = points[0], points[2]
    assert dict(first.settings) == {"release.sigma": 0.1, "model.bottleneck.size": 4}
    assert (first.family, third.family) == ("narrow", "open")
    assert first.label == "sigma=0.1 width=narrow seed=0"
    assert third.config.model.bottleneck.kind == "none"
    assert first.id == first.config.hash()[:16]


def test_a_point_is_the_run_its_overrides_would_be(write_sweep, smaller, repository, tmp_path):
    point = load_sweep(write_sweep(tmp_path / "s.yaml")).points()[3]
    overrides = ["runtime.threads=1", "attacks.reconstruction=[]", "evaluation.references=[open]"]
    overrides += ["release.sigma=0.3", "seed=1", *smaller]
    assert point.config_hash == load_config(repository / "configs" / "debug.yaml", overrides).hash()


def test_random_draws_are_seeded_bounded_and_more_of_them_keep_the_first(write_sweep, tmp_path):
    def draws(n: int, **more: object) -> list[float]:
        random = {"low": 0.1, "high": 10, "log": True, "n": n, "seed": 3} | more
        path = write_sweep(tmp_path / "s.yaml", axes=[axis(key="release.clip", random=random)], seeds=[0])
        return [point.config.release.clip for point in load_sweep(path).points()]

    three, six = draws(3), draws(6)
    assert six[:3] == three
    assert len(set(six)) == 6
    assert all(0.1 <= value <= 10 for value in six)
    assert draws(3, seed=4) != three
    integers = load_sweep(
        write_sweep(
            tmp_path / "i.yaml",
            axes=[axis(key="training.batch_size", random={"low": 8, "high": 12, "n": 5, "integer": True})],
        )
    )
    assert {point.config.training.batch_size for point in integers.points()} == {8, 9, 10, 11, 12}


def test_points_of_one_front_meet_the_same_attackers(write_sweep, tmp_path):
    """Whoever adapts to one point's defense attacks the undefended one too."""
    axes = [axis(key="defense.name", values=["none", "cell_means"])]
    default = {"attacks.attribute": ["logistic_regression", "gradient_boosting", "rbf_kernel", "mlp", "cnn"]}
    overrides = {"defense.options": {}, **default}
    path = write_sweep(tmp_path / "s.yaml", axes=axes, overrides=overrides, seeds=[0])
    bare, defended = load_sweep(path).points()
    assert bare.config.attackers.attribute == defended.config.attackers.attribute
    assert "fine_tune" in [choice.name for choice in bare.config.attackers.attribute]
    axes = [axis(key="defense.name", values=["none"])]
    path = write_sweep(tmp_path / "n.yaml", axes=axes, overrides=overrides, seeds=[0])
    (alone,) = load_sweep(path).points()
    assert "fine_tune" not in [choice.name for choice in alone.config.attackers.attribute]


def test_a_bare_choice_in_the_base_takes_a_name_and_options(write_sweep, tmp_path):
    variants = {"a": {"defense.name": "max_entropy", "defense.options.weight": 2.0}}
    path = write_sweep(
        tmp_path / "s.yaml", more={"defense": "none"}, axes=[axis(name="defense", variants=variants)]
    )
    config = load_sweep(path).points()[0].config
    assert config.defense.name == "max_entropy"
    assert config.defense.options == {"weight": 2.0}


def test_the_family_is_a_key_of_the_configuration_by_default(write_sweep, tmp_path):
    points = load_sweep(write_sweep(tmp_path / "s.yaml")).points()
    assert {point.family for point in points} == {"gradient_reversal"}


def test_the_hash_is_of_name_and_base_not_of_axes(write_sweep, tmp_path):
    base = load_sweep(write_sweep(tmp_path / "a.yaml")).hash()
    longer = write_sweep(tmp_path / "b.yaml", axes=[axis(key="release.sigma", values=[0.5])], seeds=[4])
    assert load_sweep(longer).hash() == base
    assert load_sweep(write_sweep(tmp_path / "c.yaml", name="other")).hash() != base
    assert load_sweep(write_sweep(tmp_path / "d.yaml", more={"release.clip": 2.0})).hash() != base
    assert load_sweep(write_sweep(tmp_path / "e.yaml", more={"tracking.enabled": True})).hash() == base


def test_the_resolved_file_reads_back_as_the_same_sweep(write_sweep, tmp_path):
    sweep = load_sweep(write_sweep(tmp_path / "s.yaml"))
    (tmp_path / "again.yaml").write_text(sweep.to_yaml())
    again = load_sweep(tmp_path / "again.yaml")
    assert again.hash() == sweep.hash()
    assert [point.id for point in again.points()] == [point.id for point in sweep.points()]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"axes": [axis(key="release.sigmaa", values=[1])]},
            ["release.sigmaa", "Did you mean release.sigma"],
        ),
        ({"axes": [axis(key="sigma", values=[1])]}, ["names no configuration key", "release.sigma"]),
        ({"axes": [axis(key="release.sigma", values=[])]}, ["axes.0", "empty"]),
        ({"axes": [axis(name="w", variants={})]}, ["axes.0", "empty"]),
        ({"axes": [axis(name="w", variants={"a": {}})]}, ["axes.0", "sets nothing"]),
        ({"axes": [axis(key="release.sigma")]}, ["axes.0", "values or random"]),
        ({"axes": [axis(key="release.sigma", values=[1], typo=3)]}, ["axes.0.typo"]),
        (
            {"axes": [axis(key="release.sigma", values=[1]), axis(key="release.sigma", values=[2])]},
            ["axes.1", "set by the axis release.sigma already", "Keep one"],
        ),
        (
            {
                "axes": [
                    axis(key="release.sigma", values=[1]),
                    axis(name="n", variants={"a": {"release.sigma": 2}}),
                ]
            },
            ["axes.1", "release.sigma", "already"],
        ),
        ({"axes": [axis(key="release.sigma", values=[0.1, 0.1])]}, ["axes.0", "appears twice"]),
        ({"seeds": [0, 0]}, ["seeds", "appears twice"]),
        ({"axes": [axis(key="seed", values=[1])]}, ["cannot be an axis", "seeds"]),
        ({"axes": [axis(key="tracking.enabled", values=[True])]}, ["cannot be an axis"]),
        ({"family": "defence.name"}, ["family", "defense.name"]),
        ({"base": "nowhere.yaml"}, ["base", "readable YAML"]),
        ({"config": {}}, ["base", "config", "not both"]),
        ({"axes": [axis(key="release.sigma", random={"low": 2, "high": 1, "n": 1})]}, ["low must be below"]),
        ({"more": {"release.sigmaa": 1}}, ["overrides", "release.sigma"]),
    ],
)
def test_bad_sweep_files_name_the_axis_and_the_remedy(write_sweep, tmp_path, changes, words):
    path = write_sweep(tmp_path / "s.yaml", **changes)
    with pytest.raises(ConfigError) as caught:
        load_sweep(path).points()
    for word in words:
        assert word in str(caught.value)


def test_a_point_with_an_invalid_configuration_is_named(write_sweep, tmp_path):
    path = write_sweep(tmp_path / "s.yaml", axes=[axis(key="release.sigma", values=[0.1, -1.0])])
    with pytest.raises(ConfigError, match=r"point \(sigma=-1.0 seed=0\): release.sigma.*greater than"):
        load_sweep(path).points()


def test_two_steps_to_one_configuration_are_refused(write_sweep, tmp_path):
    variants = {"a": {"release.clip": 1.0}, "b": {"release.clip": 1}}
    path = write_sweep(tmp_path / "s.yaml", axes=[axis(name="c", variants=variants)])
    with pytest.raises(ConfigError, match=r"c=b seed=0.*the same configuration as c=a seed=0"):
        load_sweep(path).points()


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("defense.name", "max_entropyy", "max_entropy"),
        ("model.backbone", "small_cn", "small_cnn"),
        ("attacks.attribute", ["logistic"], "logistic_regression"),
        ("dataset.options.imagess", 4, "images"),
    ],
)
def test_names_no_registry_knows_are_refused_before_anything_is_computed(
    write_sweep, tmp_path, key, value, near
):
    path = write_sweep(tmp_path / "s.yaml", axes=[axis(key=key, values=[value])])
    with pytest.raises(ConfigError, match=rf"point \(\S*{key.rpartition('.')[2]}=.*{near}"):
        check_points(load_sweep(path).points())


def test_shipped_sweeps_load(repository):
    paths = sorted((repository / "configs" / "sweeps").glob("*.yaml"))
    paths += sorted(Path(repository / "experiments").glob("*/sweep.yaml"))
    assert paths
    for path in paths:
        check_points(load_sweep(path).points())
    assert len(load_sweep(repository / "configs" / "sweeps" / "debug.yaml").points()) == 12


def test_a_points_name_is_what_differs_between_points(tmp_path, repository):
    """What all points have in common is left out, words that two axes share are said in full."""

    def names(**more):
        path = tmp_path / "s.yaml"
        data = {"name": "s", "base": str(repository / "configs" / "debug.yaml"), **more}
        path.write_text(yaml.safe_dump(data))
        return [point.name for point in load_sweep(path).points()]

    sigma = {"key": "release.sigma", "values": [0.1, 0.3]}
    cut = {"key": "model.cut", "values": ["stage2"]}
    kinds = {"key": "defense.name", "values": ["none", "max_entropy"]}
    assert names(axes=[sigma, cut]) == ["sigma=0.1", "sigma=0.3"]
    assert names(axes=[cut], seeds=[4, 5]) == ["seed=4", "seed=5"]
    assert names(axes=[cut]) == ["cut=stage2 seed=0"]
    assert names(axes=[kinds], overrides={"defense.options": {}}) == [
        "defense.name=none",
        "defense.name=max_entropy",
    ]
    assert names(axes=[sigma], seeds=[0, 1])[0] == "sigma=0.1 seed=0"
