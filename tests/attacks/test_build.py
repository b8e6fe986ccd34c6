import pytest

from privhier.attacks.build import build_attack
from privhier.config import Choice
from privhier.errors import ConfigError, UnknownNameError


def build(name, kind="attribute", **options):
    return build_attack(Choice(name=name, options=options), kind=kind, target="age")


def test_options_reach_the_attack():
    attack = build("mlp", epochs=7, widths=[32], dropouts=[0], learning_rates=[0.01])
    assert (attack.target, attack.epochs, attack.widths, attack.dropouts) == ("age", 7, (32,), (0.0,))


def test_an_unknown_attack_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean logistic_regression") as caught:
        build("logistic_regresion")
    assert caught.value.key == "attacks.attribute"


def test_an_attack_of_another_kind_is_refused():
    with pytest.raises(UnknownNameError) as caught:
        build("decoder")
    assert "decoder" not in caught.value.remedy
    assert "attribute" in caught.value.rule


@pytest.mark.parametrize(
    ("name", "option", "value", "text"),
    [
        ("mlp", "epoch", 3, "Did you mean epochs"),
        ("mlp", "target", "race", "is not an option of mlp"),
        ("mlp", "epochs", 2.5, "must be of type int"),
        ("mlp", "epochs", True, "must be of type int"),
        ("mlp", "epochs", 0, "must be at least 1"),
        ("cnn", "dropout", 1.5, "must be at most 0.95"),
        ("cnn", "dropout", "high", "must be of type float"),
        ("cnn", "weight_decay", float("nan"), "must be of type float"),
        ("logistic_regression", "penalties", 1.0, "must be a list of numbers"),
        ("logistic_regression", "penalties", [], "must be a list of numbers"),
        ("gradient_boosting", "leaves", [5, 1], "must be at least 2"),
    ],
)
def test_a_bad_option_is_named(name, option, value, text):
    with pytest.raises(ConfigError, match=text) as caught:
        build(name, **{option: value})
    assert caught.value.key == f"attacks.attribute.{name}.options.{option}"


def test_lists_tried_pairwise_must_be_equally_long():
    with pytest.raises(ConfigError, match="equally long") as caught:
        build("gradient_boosting", leaves=[5])
    assert caught.value.key == "attacks.attribute.gradient_boosting.options"
