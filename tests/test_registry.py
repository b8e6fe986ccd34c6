"""What may be registered, what is said of what may not, and that nobody's mistake is another's."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import Field
from typer.testing import CliRunner

import privhier.registry
from privhier.attacks.base import Attack, AttackResult, attacks
from privhier.attacks.build import build_attack, names_of
from privhier.attacks.embedders.base import FaceEmbedder, embedders
from privhier.attacks.membership.base import MembershipAttack, MembershipResult, membership_attacks
from privhier.cli.catalog import describe
from privhier.cli.main import app
from privhier.config import Choice, Section
from privhier.config.choices import build, option
from privhier.datasets.listing import Listing, Source
from privhier.datasets.registry import datasets
from privhier.defenses.base import AdversarialOptions, Defense, DefenseOptions, defenses
from privhier.errors import ConfigError, ContractError, PrivhierError, PrivhierWarning, UnknownNameError
from privhier.models.staged import backbones
from privhier.registry import Registry, nearest

REGISTRIES = {
    "attacks": attacks,
    "membership_attacks": membership_attacks,
    "embedders": embedders,
    "datasets": datasets,
    "defenses": defenses,
    "backbones": backbones,
}


@pytest.fixture(autouse=True)
def left_as_they_were() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = {}
    for name, registry in REGISTRIES.items():
        registry.names()
        before[name] = dict(registry._entries), dict(registry._broken)
    yield
    for name, registry in REGISTRIES.items():
        registry._entries, registry._broken = before[name]


# What is said of a name nobody knows


@pytest.mark.parametrize(
    ("value", "known", "text"),
    [
        ("resnet81", ["vgg16", "resnet18"], "Did you mean resnet18? Known: vgg16, resnet18"),
        ("LFW", ["lfw", "celeba"], "Did you mean lfw? Known: lfw, celeba"),
        ("nothing", ["lfw", "celeba"], "Known: lfw, celeba"),
        ("male", ["Male", "male_hair"], "Did you mean Male or male_hair? Known: Male, male_hair"),
        ("x", [], "There are none"),
    ],
)
def test_the_nearest_names_come_first(value, known, text):
    assert nearest(value, known) == text


def test_a_list_too_long_to_read_can_be_left_out():
    assert nearest("sigmaa", ["sigma"], otherwise="See configs/") == "Did you mean sigma? See configs/"


@pytest.mark.parametrize(
    ("kind", "typo"), [(kind, registry.names()[0] + "x") for kind, registry in REGISTRIES.items()]
)
def test_every_registry_says_the_same_of_an_unknown_name(kind, typo):
    registry = REGISTRIES[kind]
    with pytest.raises(UnknownNameError) as caught:
        registry.get(typo)
    error = caught.value
    assert (error.key, error.value) == (registry.key, typo)
    assert error.rule == f"must be one of the registered {kind}"
    assert error.remedy == nearest(typo, registry.names())
    assert f"Did you mean {typo[:-1]}" in error.remedy


def test_the_registry_alone_knows_the_built_in_ones():
    """Whoever imports a registry sees all of it, whatever else was imported."""
    code = (
        "from privhier.attacks.base import attacks; from privhier.datasets.registry import datasets; "
        "from privhier.defenses.base import defenses; from privhier.models.staged import backbones; "
        "assert 'mlp' in attacks.names() and 'lfw' in datasets.names(); "
        "assert 'none' in defenses.names() and 'vgg11' in backbones.names()"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


# One builder, one style of errors


@dataclass(frozen=True)
class Pen:
    """Options as a dataclass has them."""

    width: int = option(2, low=1, high=9)
    slope: float = option(0.5, low=0.0)
    colors: tuple[str, ...] = ("red",)
    fine: bool = False
    owner: str = ""

    def __post_init__(self) -> None:
        if self.fine and self.width > 3:
            raise ValueError("a fine pen is at most 3 wide")


class Brush(Section):
    """The same options as a pydantic model has them."""

    width: int = Field(2, ge=1, le=9, strict=True)
    slope: float = Field(0.5, ge=0, strict=True, allow_inf_nan=False)
    colors: tuple[str, ...] = Field(("red",), min_length=1)
    fine: bool = Field(False, strict=True)


class Press:
    """The same options in a model of their own, which it is called with."""

    Options = Brush

    def __init__(self, options: Brush) -> None:
        self.options = options


def tools(key: str) -> Registry[Any]:
    made: Registry[Any] = Registry("tools", key=key)
    for name, kind in (("pen", Pen), ("brush", Brush), ("press", Press)):
        made.register(name)(kind)
    return made


def built(name: str, *, key: str = "tool.name", **options: Any) -> Any:
    return build(tools(key), Choice(name=name, options=options), **({"owner": "me"} if name == "pen" else {}))


FAULTS = [
    ({"width": 0}, "width", "must be at least 1"),
    ({"width": 10}, "width", "must be at most 9"),
    ({"width": 1.5}, "width", "must be of type int"),
    ({"width": True}, "width", "must be of type int"),
    ({"slope": "steep"}, "slope", "must be of type float"),
    ({"slope": float("nan")}, "slope", "must be of type float"),
    ({"fine": "yes"}, "fine", "must be of type bool"),
    ({"colors": "red"}, "colors", "must be a list of strings"),
    ({"colors": []}, "colors", "must be a list of strings"),
    ({"colors": [1]}, "colors", "must be of type str"),
    ({"widht": 3}, "widht", "is not an option of"),
]


@pytest.mark.parametrize(("options", "option_name", "rule"), FAULTS)
def test_the_same_fault_is_told_in_the_same_words(options, option_name, rule):
    said = set()
    for name in ("pen", "brush", "press"):
        with pytest.raises(ConfigError) as caught:
            built(name, **options)
        assert caught.value.key == f"tool.options.{option_name}"
        assert caught.value.rule.startswith(rule)
        assert repr(caught.value.value) == repr(options[option_name])
        said.add((caught.value.rule.replace(name, "it"), caught.value.remedy))
    assert len(said) == 1, said


def test_the_remedy_names_the_default_or_the_nearest_option():
    with pytest.raises(ConfigError, match="Leave it out for the default, 2"):
        built("pen", width=0)
    with pytest.raises(ConfigError, match=r"Did you mean width\? Known: width, slope, colors, fine$"):
        built("pen", widht=3)


def test_several_choices_under_one_key_carry_their_names():
    with pytest.raises(ConfigError) as caught:
        built("pen", key="desk.tools", width=0)
    assert caught.value.key == "desk.tools.pen.options.width"
    with pytest.raises(UnknownNameError) as unknown:
        built("pan", key="desk.tools")
    assert unknown.value.key == "desk.tools"


def test_options_that_do_not_go_together_are_named_as_such():
    with pytest.raises(ConfigError, match="a fine pen is at most 3 wide") as caught:
        built("pen", fine=True, width=4)
    assert caught.value.key == "tool.options"
    assert caught.value.value == {"fine": True, "width": 4}


@dataclass(frozen=True)
class Unread1:
    width: NotThere = 1  # noqa: F821  (the name is the fault)


@dataclass(frozen=True)
class Unread2:
    view: SimpleNamespace | None = None


@pytest.mark.parametrize("kind", [Unread1, Unread2])
def test_types_nobody_can_configure_are_told(kind):
    registry: Registry[Any] = Registry("tools", key="tool.name")
    registry.register("odd")(kind)
    with pytest.raises(ContractError, match="has options whose types cannot be read") as caught:
        build(registry, Choice(name="odd"))
    assert caught.value.key.endswith(kind.__name__)


def test_what_is_fixed_is_no_option():
    assert built("pen", width=3, slope=1) == Pen(width=3, slope=1.0, owner="me")
    with pytest.raises(ConfigError, match="is not an option"):
        built("pen", owner="you")


# Attacks


def attack_class(**changes: Any) -> type:
    members = {
        "__module__": __name__,
        "__doc__": "Says nothing.",
        "__annotations__": {"kind": "ClassVar[str]", "target": "str"},
        "kind": "attribute",
        "white_box": False,
        "expensive": False,
        "target": "",
        "refuses": lambda self, view: None,
        "run": lambda self, view: AttackResult(),
        **changes,
    }
    frozen = members.pop("frozen", True)
    made = type("Third", (), {name: value for name, value in members.items() if value is not None})
    if "target" not in vars(made):
        made.__annotations__.pop("target")
    return made if frozen is None else dataclass(frozen=frozen)(made)


def test_an_attack_with_all_of_the_contract_needs_no_base_class():
    attacks.register("third")(attack_class())
    assert "third" in names_of("attribute")
    assert build_attack(Choice(name="third"), kind="attribute", target="age").target == "age"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": None}, "lacks kind: .*attribute, verification, reconstruction, property"),
        ({"kind": "atribute"}, "kind 'atribute'.*must be one of"),
        ({"white_box": None}, "lacks white_box"),
        ({"white_box": "no"}, "lacks white_box: ClassVar.bool."),
        ({"expensive": None}, "lacks expensive"),
        ({"refuses": None}, r"lacks refuses\(view\)"),
        ({"run": None}, r"lacks run\(view\), which gives an AttackResult"),
        ({"run": lambda self: None}, r"must be callable as run\(view\)"),
        ({"target": None}, 'lacks the field target: str = ""'),
        ({"frozen": False}, "must be a frozen dataclass"),
        ({"frozen": None}, "must be a frozen dataclass"),
    ],
)
def test_an_attack_without_its_contract_is_refused_and_hurts_no_other(changes, text):
    with pytest.raises(ContractError, match=text) as caught:
        attacks.register("third")(attack_class(**changes))
    assert caught.value.key == "attacks.register"
    assert caught.value.value == "third"
    assert caught.value.exit_code == 2
    assert "third" not in attacks.names()
    assert {"mlp", "cnn"} <= set(names_of("attribute"))


def test_what_every_object_has_alike_is_no_option():
    @dataclass(frozen=True)
    class Loose(Attack):
        kind: str = "attribute"
        white_box: bool = False
        k: int = option(0, low=1)

        def run(self, view):
            return AttackResult()

    with pytest.raises(ContractError) as caught:
        attacks.register("third")(Loose)
    assert "kind must be no option: annotate it kind: ClassVar" in caught.value.rule
    assert "white_box must be no option" in caught.value.rule
    assert "the default 0 of k lies outside its own bounds [1, inf]" in caught.value.rule


def test_every_broken_rule_is_told_at_once():
    with pytest.raises(ContractError) as caught:
        attacks.register("third")(attack_class(kind=None, white_box=None, run=None))
    assert all(word in caught.value.rule for word in ("kind", "white_box", "run"))


def test_a_subclass_of_attack_says_its_kind_and_how_it_runs():
    @attacks.register("short")
    @dataclass(frozen=True)
    class Short(Attack):
        kind: ClassVar[Any] = "attribute"

        def run(self, view):
            return AttackResult()

    assert (Short.white_box, Short.expensive, Short().target) == (False, False, "")

    with pytest.raises(ContractError, match="lacks kind"):

        @attacks.register("kindless")
        @dataclass(frozen=True)
        class Kindless(Attack):
            def run(self, view):
                return AttackResult()

    with pytest.raises(ContractError, match="lacks run, which every Attack has"):

        @attacks.register("idle")
        @dataclass(frozen=True)
        class Idle(Attack):
            kind: ClassVar[Any] = "attribute"

    with pytest.raises(ContractError, match="must be a frozen dataclass"):

        @attacks.register("bare")
        class Bare(Attack):
            kind: ClassVar[Any] = "attribute"

            def run(self, view):
                return AttackResult()


# The other kinds


class Whole(Defense):
    Options = DefenseOptions

    def loss(self, batch):
        return batch.z.sum()


class Lossless(Defense):
    Options = DefenseOptions


class Optionless(Whole):
    Options = dict


class Faces(Source):
    def read(self, root, *, seed):
        return Listing((), {})


class Unread(Source):
    pass


class Embedder(FaceEmbedder):
    def _vectors(self, images):
        return images


class Blind(FaceEmbedder):
    pass


@dataclass(frozen=True)
class Member(MembershipAttack):
    def run(self, view):
        return MembershipResult({})


@dataclass(frozen=True)
class Idle(MembershipAttack):
    pass


class Melted(Member):
    def run(self, view):
        return MembershipResult({})


def backbone(*, n_outputs, norm, stem):
    return None


def narrow(*, n_outputs):
    return None


@pytest.mark.parametrize(
    ("kind", "good", "bad", "text"),
    [
        ("defenses", Whole, Lossless, "lacks loss, which every Defense has"),
        ("defenses", Whole, Optionless, "lacks Options"),
        ("defenses", Whole, AdversarialOptions, "must be a subclass of Defense"),
        ("defenses", Whole, Whole(DefenseOptions()), "it is a Whole, not a class"),
        ("datasets", Faces, Unread, "lacks read"),
        ("datasets", Faces, dict, "must be a subclass of Source"),
        ("embedders", Embedder, Blind, "lacks _vectors"),
        ("embedders", Embedder, len, "not a class"),
        ("membership_attacks", Member, Idle, "lacks run"),
        ("membership_attacks", Member, Melted, "must be a frozen dataclass"),
        ("membership_attacks", Member, attack_class(), "must be a subclass of MembershipAttack"),
        ("backbones", backbone, narrow, r"must be callable as build\(\*, n_outputs, norm, stem\)"),
        ("backbones", backbone, "resnet", r"lacks build\("),
    ],
)
def test_other_kinds_are_held_to_their_contract_too(kind, good, bad, text):
    registry = REGISTRIES[kind]
    known = registry.names()
    with pytest.raises(ContractError, match=text) as caught:
        registry.register("third")(bad)
    assert caught.value.key == f"{kind}.register"
    assert registry.names() == known
    assert registry.register("third")(good) is good
    assert registry.get("third") is good


@pytest.mark.parametrize("name", ["", "two words", "lira#2", "a/b", "a.b", None])
def test_a_name_is_one_word(name):
    with pytest.raises(ContractError, match="is no name"):
        defenses.register(name)(Whole)


def test_a_name_is_taken_once():
    with pytest.raises(ContractError, match="registered twice"):
        defenses.register("none")(Whole)


def test_the_same_object_may_be_registered_twice():
    for _ in range(2):
        assert defenses.register("whole")(Whole) is Whole
    assert defenses.get("whole") is Whole


def test_a_class_that_a_notebook_defines_anew_takes_the_old_ones_place():
    first, second = (type("Whole", (Whole,), {"__doc__": "Says it."}) for _ in range(2))
    for one in (first, second):
        one.__module__ = "__main__"
        defenses.register("mine")(one)
    assert defenses.get("mine") is second
    other = type("Other", (Whole,), {"__doc__": "Says it.", "__module__": "__main__"})
    with pytest.raises(ContractError, match="registered twice"):
        defenses.register("mine")(other)


# Plugins


@pytest.fixture
def plugins(monkeypatch):
    """``plugins(kind, name=loader)``: the registry as a process with such entry points sees it."""

    def install(kind: str, **loaders: Any) -> Registry[Any]:
        points = [
            SimpleNamespace(
                name=name, load=load, value=f"their.module:{name}", dist=SimpleNamespace(name="theirs")
            )
            for name, load in loaders.items()
        ]
        monkeypatch.setattr(
            privhier.registry, "entry_points", lambda group: points if group == f"privhier.{kind}" else []
        )
        monkeypatch.setattr(REGISTRIES[kind], "_filled", False)
        return REGISTRIES[kind]

    return install


def fails() -> Any:
    raise ModuleNotFoundError("No module named 'keras'")


def leaves() -> Any:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (fails, "ModuleNotFoundError: No module named 'keras'"),
        (leaves, "SystemExit: 3"),
        (lambda: attack_class(kind=None), "lacks kind"),
        (lambda: 7, "not a class"),
    ],
)
def test_a_broken_plugin_breaks_nobody_else(plugins, broken, text):
    registry = plugins("attacks", theirs=broken, good=attack_class)
    with pytest.warns(PrivhierWarning, match=r"entry point theirs of privhier\.attacks: .* Mend theirs"):
        registry.names()
    assert {"mlp", "good"} <= set(registry.names())
    assert "theirs" not in registry.names()
    assert {"mlp", "good"} <= set(names_of("attribute"))
    assert build_attack(Choice(name="mlp"), kind="attribute", target="age").target == "age"
    with pytest.raises(ContractError, match=text) as caught:
        build_attack(Choice(name="theirs"), kind="attribute", target="age")
    assert "entry point theirs of privhier.attacks" in caught.value.key
    assert caught.value.value == "their.module:theirs"
    assert "theirs" in caught.value.remedy
    shown = dict(describe("attacks"))
    assert shown["good"] == "Says nothing."
    assert "cannot be used" in shown["theirs"]
    printed = CliRunner().invoke(app, ["list", "attacks"], env={"COLUMNS": "400"}).output
    assert shown["theirs"] in " ".join(printed.split()), "brackets are no markup here"


def test_a_plugin_cannot_take_a_known_name(plugins):
    before = defenses.get("none")
    registry = plugins("defenses", none=lambda: Whole)
    with pytest.warns(PrivhierWarning, match="entry point none"):
        registry.names()
    assert registry.get("none") is before
    assert "registered twice" in registry.broken()["none"].rule


def test_a_plugin_may_register_itself_as_well(plugins):
    registry = plugins("defenses", whole=lambda: defenses.register("whole")(Whole))
    assert registry.get("whole") is Whole
    assert registry.broken() == {}


def test_every_refusal_is_an_error_of_ours():
    assert issubclass(ContractError, PrivhierError)


def test_an_abstract_step_between_is_no_entry():
    class Between(Defense):
        Options = DefenseOptions

        def loss(self, batch):
            return self.term(batch)

        @abstractmethod
        def term(self, batch): ...

    with pytest.raises(ContractError, match="lacks term"):
        defenses.register("between")(Between)


# Public names


@pytest.mark.parametrize("room", ["attacks", "datasets", "defenses"])
def test_every_registered_class_is_offered_by_name(room):
    module = importlib.import_module(f"privhier.{room}")
    registry = getattr(module, room)
    assert registry is REGISTRIES[room]
    ours = [registry.get(name) for name in registry.names()]
    assert {kind for kind in ours if kind.__module__.startswith(f"privhier.{room}.")} <= {
        getattr(module, name) for name in module.__all__
    }
    for kind in ours:
        if kind.__module__.startswith(f"privhier.{room}."):
            assert getattr(module, kind.__name__) is kind
            assert {kind.__name__, room} <= set(module.__all__) <= set(dir(module))
    everything: dict[str, Any] = {}
    exec(f"from privhier.{room} import *", everything)
    assert set(module.__all__) <= set(everything)
    with pytest.raises(AttributeError, match=r"Did you mean "):
        getattr(module, ours[0].__name__ + "x")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_importing_a_room_loads_nothing_and_a_name_only_what_it_needs():
    code = (
        "import sys, privhier.attacks, privhier.datasets, privhier.defenses as d; "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules; "
        "from privhier.datasets import listing; assert 'torch' not in sys.modules; "
        "from privhier.attacks import NearestNeighbors, LiraAttack; "
        "assert NearestNeighbors(target='male').neighbors; "
        "from privhier.attacks.membership import lira; assert lira.LiraAttack is LiraAttack"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


# One style


PACKAGES = {"privhier": "privhier", "attacks": "privhier.attacks", "datasets": "privhier.datasets"}
LISTS = {
    "attacks/builtin.py": "attacks",
    "attacks/membership/builtin.py": "membership_attacks",
    "attacks/embedders/builtin.py": "embedders",
    "datasets/builtin.py": "datasets",
    "privhier/defenses/builtin.py": "defenses",
    "privhier/models/builtin.py": "backbones",
}


def imported(path: Path) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]


@pytest.mark.parametrize("file", LISTS)
def test_a_list_is_one_import_line_for_each_entry(repository, file):
    tree = ast.parse((repository / file).read_text())
    docstring, *lines = tree.body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(line, ast.ImportFrom) and len(line.names) == 1 for line in lines)
    listed = {line.names[0].name for line in lines}
    registry = REGISTRIES[LISTS[file]]
    entries = [registry.get(name) for name in registry.names()]
    assert listed == {entry.__name__ for entry in entries if entry.__module__.startswith("privhier.")}


def test_nothing_is_registered_but_by_decorator(repository):
    found = []
    for folder in PACKAGES:
        for path in sorted((repository / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            defined = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef)]
            decorators = {id(one) for node in defined for one in node.decorator_list}
            found += [
                f"{path.name}: line {node.lineno}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "register"
                and id(node) not in decorators
            ]
    assert found == []


@pytest.mark.parametrize("file", LISTS)
def test_no_entry_is_built_on_another_one(repository, file):
    """What several share has a module of its own, which registers nothing."""
    listed = {line.module for line in imported(repository / file)}
    for module in listed:
        package = next(folder for folder, name in reversed(PACKAGES.items()) if module.startswith(name + "."))
        path = repository / package / (module.removeprefix(PACKAGES[package] + ".").replace(".", "/") + ".py")
        others = {line.module for line in imported(path)} & (listed - {module})
        assert others == set(), module


def test_there_is_one_place_that_guesses_names(repository):
    guessing = [
        str(path.relative_to(repository))
        for folder in PACKAGES
        for path in sorted((repository / folder).rglob("*.py"))
        if "difflib" in path.read_text()
    ]
    assert guessing == ["privhier/registry.py"]
