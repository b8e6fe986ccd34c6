"""Weighted combinations: the terms alone are added, the sum is what its parts are, and what excludes what."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from privhier.config import Choice, load_config
from privhier.defenses.base import Defense, DefenseBatch, build_defense, defenses, task_loss_per_record
from privhier.errors import ConfigError, TrainingError
from privhier.models.edge import EdgeSegment
from privhier.seeding import isolated_rng
from privhier.training.private_plan import check_defense

contract = runpy.run_path(str(Path(__file__).parents[1] / "contracts" / "test_defenses.py"))
helpers = runpy.run_path(str(Path(__file__).parents[1] / "training" / "test_trainer.py"))
private = runpy.run_path(str(Path(__file__).parents[1] / "training" / "test_private_edge.py"))
make_edge, make_batch, make_data = (contract[name] for name in ("make_edge", "make_batch", "make_data"))
small_config = helpers["small_config"]


def prepared(name: str, edge: EdgeSegment | None = None, **options) -> tuple[Defense, EdgeSegment]:
    with isolated_rng(0, "made"):
        defense = build_defense(Choice(name=name, options=options))
    edge = edge or make_edge("vector")
    defense.attach(edge)
    if defense.reads_data:
        defense.begin(edge, make_data(edge))
    return defense, edge


def gradients(defense: Defense, edge: EdgeSegment, strength: float = 1.0) -> dict[str, Tensor]:
    edge.zero_grad(set_to_none=True)
    defense.loss(replace(make_batch(edge), strength=strength)).mean().backward()
    return {name: p.grad.clone() for name, p in edge.named_parameters() if p.grad is not None}


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("name", ["none", "max_entropy", "gradient_reversal", "focal_entropy"])
def test_a_sum_of_one_is_that_one(name, strength):
    alone = prepared(name)
    summed = prepared("sum", parts=[{"name": name}])
    assert close(gradients(*summed, strength), gradients(*alone, strength))


def test_it_is_the_task_and_the_weighted_terms_and_the_exits_learn_once():
    parts = {
        "max_entropy": (0.7, {"weight": 2.0, "target": "prior"}),
        "gradient_reversal": (0.3, {"weight": 1.5}),
        "cell_means": (2.0, {"weight": 0.1, "begins": 0.25}),
    }
    plain = gradients(*prepared("none"))
    wanted = {name: value.clone() for name, value in plain.items()}
    for name, (weight, options) in parts.items():
        for parameter, value in gradients(*prepared(name, **options)).items():
            wanted[parameter] += weight * (value - plain[parameter])
    listed = [{"name": name, "weight": w, "options": options} for name, (w, options) in parts.items()]
    found = gradients(*prepared("sum", parts=listed))
    assert close(found, wanted)
    exits = {name for name in plain if "exits" in name}
    assert all(torch.allclose(found[name], plain[name], atol=1e-7) for name in exits)


def test_a_part_of_no_weight_changes_nothing_and_its_adversaries_learn_all_the_same():
    parts = [
        {"name": "max_entropy", "weight": 0.0, "options": {"adversaries": 2}},
        {"name": "gradient_reversal"},
    ]
    defense, edge = prepared("sum", parts=parts)
    found = gradients(defense, edge)
    assert close(found, gradients(*prepared("gradient_reversal")))
    panel = defense.parts[0].panel
    batch = make_batch(edge)
    honest = sum(
        nn.functional.cross_entropy(member[k](batch.z.detach()), labels)
        for member in panel.members
        for k, labels in enumerate(batch.sensitive_labels)
    )
    for parameter, wanted in zip(
        panel.parameters(), torch.autograd.grad(honest, list(panel.parameters())), strict=True
    ):
        assert torch.allclose(parameter.grad, wanted, atol=1e-6)


def test_the_exits_themselves_are_passed_through_once_a_step():
    """Opacus' hooks on them allow no more, however many parts look at them."""
    parts = [{"name": "max_entropy", "options": {"adversaries": 1}}, {"name": "gradient_reversal"}]
    defense, edge = prepared("sum", parts=parts)
    passes: list[nn.Module] = []
    exits = [*edge.task_exits, *edge.adversarial_exits]
    for head in exits:
        head.register_forward_hook(lambda module, given, answer: passes.append(module))
    defense.loss(make_batch(edge))
    assert sorted(map(id, passes)) == sorted(map(id, exits))


def test_its_copies_follow_the_exits():
    defense, edge = prepared("sum")
    before = gradients(defense, edge)
    with torch.no_grad():
        for parameter in edge.adversarial_exits.parameters():
            parameter.mul_(3.0)
    after = gradients(defense, edge)
    assert not close(before, after)
    fresh = build_defense(Choice(name="sum"))
    fresh.attach(edge)
    assert close(gradients(fresh, edge), after)


def test_two_alike_draw_adversaries_of_their_own():
    part = {"name": "max_entropy", "options": {"adversaries": 1}}
    defense, _ = prepared("sum", parts=[part, part])
    first, second = (list(one.panel.parameters()) for one in defense.parts)
    assert not torch.equal(first[0], second[0])
    own = {id(parameter) for parameter in defense.adversaries()}
    assert own == {id(parameter) for parameter in [*first, *second]}


class Recording(Defense):
    """Says what it was asked to do."""

    needs = frozenset({"images", "persons"})
    finishes = True

    def __init__(self, options=None) -> None:
        super().__init__(options)
        self.told: list[str] = []

    def outlet(self, feature_shape):
        return nn.Identity()

    def attach(self, edge):
        self.told.append("attach")

    def begin(self, edge, data):
        self.told.append("begin")

    def after_step(self, batch):
        self.told.append("step")

    def finish(self, edge, data):
        self.told.append("finish")

    def loss(self, batch: DefenseBatch) -> Tensor:
        assert batch.images is not None
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)


@pytest.mark.usefixtures("comparing")
def test_it_says_what_its_parts_are_and_passes_on_what_they_are_told():
    defenses.register("recording")(Recording)
    parts = [
        {"name": "recording"},
        {"name": "comparing"},
        {"name": "max_entropy", "options": {"adversary_steps": 3, "adversaries": 1}},
        {"name": "gradient_reversal", "options": {"adversary_steps": 2}},
    ]
    defense, edge = prepared("sum", parts=parts)
    assert defense.needs == {"images", "persons"}
    assert (defense.mixes_records, defense.finishes, defense.reads_data) == (True, True, True)
    assert (defense.has_parameters, defense.adversary_steps) == (True, 3)
    assert isinstance(defense.outlet((6,)), nn.Identity)
    defense.after_step(make_batch(edge))
    defense.finish(edge, make_data(edge))
    assert defense.parts[0].told == ["attach", "begin", "step", "finish"]
    defense.loss(make_batch(edge)).mean().backward()
    plain, _ = prepared("sum", parts=[{"name": "none"}, {"name": "max_entropy"}])
    assert (plain.needs, plain.mixes_records, plain.finishes) == (frozenset(), False, False)
    assert (plain.reads_data, plain.has_parameters, plain.adversary_steps) == (False, False, 0)
    kind = type(plain)
    assert (kind.needs, kind.mixes_records, kind.finishes) == (frozenset(), False, False)  # others' own


@pytest.mark.usefixtures("comparing")
def test_what_does_not_go_together_is_refused():
    defenses.register("recording")(Recording)
    defenses.register("of_letters")(
        type("L", (Recording,), {"needs": frozenset({"letters"}), "__doc__": "L."})
    )
    values = {"needs": frozenset({"values"}), "outlet": Defense.outlet, "__doc__": "V."}
    defenses.register("of_values")(type("V", (Recording,), values))
    for parts, message in (
        (["sum"], r"parts\[0\]\.name: 'sum' - must be another defense"),
        (["none", "sum"], r"parts\[1\]\.name: 'sum' - must be another defense"),
        (["recording", "recording"], r"parts: \['recording', 'recording'\] - put more than one outlet"),
        (
            ["of_letters", "of_values", "none"],
            r"parts: \['of_letters', 'of_values'\] - .*exclude one another",
        ),
    ):
        with pytest.raises(ConfigError, match=r"defense\.options\." + message):
            build_defense(Choice(name="sum", options={"parts": [{"name": name} for name in parts]}))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], r"options\.parts: \[\] - must be a list of mappings, at least one"),
        ([3], r"options\.parts: \[3\] - .*valid dictionary"),
        ("max_entropy", r"options\.parts: 'max_entropy' - must be a list"),
        ([{"weight": 1.0}], r"options\.parts\[0\]\.name: None - "),
        (
            [{"name": "none"}, {"name": "max_entrpy"}],
            r"parts\[1\]\.name: 'max_entrpy'.*Did you mean max_entropy",
        ),
        (
            [{"name": "none", "wieght": 2}],
            r"parts\[0\]\.wieght: 2 - is not an option of a part of sum.*weight",
        ),
        ([{"name": "none", "weight": -1.0}], r"parts\[0\]\.weight: -1\.0 - must be at least 0"),
        ([{"name": "none", "weight": float("inf")}], r"parts\[0\]\.weight: inf - .*finite"),
        (
            [{"name": "max_entropy", "options": {"wieght": 1.0}}],
            r"defense\.options\.parts\[0\]\.options\.wieght: 1\.0 - is not an option of max_entropy",
        ),
        (
            [{"name": "leak_budget", "options": {"budgets": [-1]}}],
            r"parts\[0\]\.options\.budgets: .*at least 0",
        ),
    ],
)
def test_bad_parts_are_named(parts, message):
    with pytest.raises(ConfigError, match=message):
        build_defense(Choice(name="sum", options={"parts": parts}))


def test_a_configuration_holds_it_from_a_file_and_from_the_command_line(repository, tmp_path):
    debug = repository / "configs" / "debug.yaml"
    text = "[{name: max_entropy, weight: 0.5}, {name: leak_budget, options: {budgets: [0.1, 0.2]}}]"
    given = ["defense.name=sum", f"defense.options.parts={text}"]
    config = load_config(debug, given)
    assert config.defense.options["parts"][1]["options"] == {"budgets": [0.1, 0.2]}
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    again = load_config(tmp_path / "again.yaml")
    assert again == config
    assert again.hash() == config.hash()
    assert build_defense(again.defense).weights == [0.5, 1.0]
    short = load_config(debug, ["defense.name=sum", "defense.options.parts=[max_entropy, cell_means]"])
    assert [type(part).__name__ for part in build_defense(short.defense).parts] == ["MaxEntropy", "CellMeans"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"name": "cell_means"}, "compares the records of a batch"),
        ({"name": "max_entropy", "options": {"adversaries": 1}}, "trains parameters of its own"),
        ({"name": "max_entropy", "options": {"target": "prior"}}, "learns from private records"),
        ({"name": "leak_budget"}, "learns from private records"),
        ({"name": "min_max"}, "takes extra adversary steps"),
    ],
)
def test_dp_sgd_refuses_what_a_part_does(part, reason):
    config = small_config(
        edge={"dp_sgd": {"noise_multiplier": 1.0}},
        defense={"name": "sum", "options": {"parts": [{"name": "none"}, part]}},
    )
    with pytest.raises(ConfigError, match=reason):
        check_defense(config, build_defense(config.defense))


def test_under_dp_sgd_it_trains_what_it_is_charged_for(tmp_path):
    parts = [{"name": "max_entropy", "weight": 0.5}, {"name": "gradient_reversal"}]
    config = private["make_config"](1, 1, defense={"name": "sum", "options": {"parts": parts}})
    trainer = private["make_trainer"](config, tmp_path)
    before = {name: value.clone() for name, value in trainer.edge.edge.state_dict().items()}
    trained = trainer.run()
    assert all(not torch.equal(value, trained.edge.state_dict()[name]) for name, value in before.items())


def test_it_needs_and_tells_what_its_parts_do():
    parts = [{"name": "vib"}, {"name": "max_entropy"}]
    both = build_defense(Choice(name="sum", options={"parts": parts}))
    assert both.needs_noise
    assert not build_defense(Choice(name="sum", options={"parts": parts[1:]})).needs_noise
    edge = make_edge("vector")
    both.attach(edge)
    with torch.no_grad():
        batch = replace(make_batch(edge), sigma=0.5)
    alone = build_defense(Choice(name="vib")).report(batch)
    assert both.report(batch) == alone
    assert len(alone) == 1


PANEL = {"name": "max_entropy", "options": {"adversaries": 2, "weight": 1.5}}
THREE = [
    {**PANEL, "weight": 0.7},
    {"name": "cell_means", "weight": 2.0, "options": {"weight": 0.1, "begins": 0.25}},
    {"name": "gradient_reversal"},
]


def twice(defense: Defense, batch: DefenseBatch) -> Tensor:
    """The definition: a term is what a part's loss adds to its own loss at strength 0."""
    beside = defense._beside(batch)
    exits = Defense.adversary_loss(defense, batch.z, beside)
    losses = task_loss_per_record(batch) + Defense.adversary_loss(defense, batch.z, batch)
    for weight, part in zip(defense.weights, defense.parts, strict=True):
        idle = part.loss(replace(beside, strength=0.0))
        losses = losses + (idle - task_loss_per_record(beside) - exits)
        losses = losses + weight * (part.loss(beside) - idle)
    return losses


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_every_part_is_asked_once_a_step_for_what_the_definition_asks_twice(strength, monkeypatch):
    defense, edge = prepared("sum", parts=THREE)
    asked: list[str] = []
    for part in defense.parts:
        monkeypatch.setattr(
            part,
            "loss",
            lambda batch, part=part: (asked.append(type(part).__name__), type(part).loss(part, batch))[1],
        )
    found = {}
    for ask in (Defense.forward, twice):
        edge.zero_grad(set_to_none=True)
        defense.zero_grad(set_to_none=True)
        losses = ask(defense, replace(make_batch(edge), strength=strength))
        losses.mean().backward()
        named = [*edge.named_parameters(), *defense.named_parameters()]
        found[ask] = losses.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}
        if ask is Defense.forward:
            assert asked == ["MaxEntropy", "CellMeans", "GradientReversal"]
    (losses, gradients_), (wanted, wanted_gradients) = found.values()
    assert torch.allclose(losses, wanted, atol=1e-5)
    assert close(gradients_, wanted_gradients)
    assert any(name.startswith("parts.0.panel") for name in gradients_)


def test_a_part_that_gives_no_loss_a_record_is_refused_and_not_broadcast():
    whole = type(
        "Whole", (Recording,), {"needs": frozenset(), "__doc__": "W.", "loss": lambda s, b: b.z.sum()}
    )
    defenses.register("of_the_whole_batch")(whole)
    defense, edge = prepared("sum", parts=["none", "of_the_whole_batch"])
    with pytest.raises(
        TrainingError, match=r"parts\[1\]\.name: 'Whole' - must give one loss a record, \(64,\)"
    ):
        defense.loss(make_batch(edge))
