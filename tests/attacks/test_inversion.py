from dataclasses import replace

import numpy as np
import pytest
import torch

from privhier.attacks.inversion import InversionAttack
from privhier.attacks.parts import descent as loop
from privhier.attacks.parts import room
from privhier.attacks.parts.descent import Pyramid, descent
from privhier.attacks.parts.matching import (
    Misfit,
    affordable_steps,
    image_errors,
    own_cases,
    total_variation,
    total_variation_slope,
)
from privhier.attacks.parts.ridge_start import RidgeStart
from privhier.attacks.parts.white_box import predicted_releases
from privhier.errors import ConfigError

QUICK = InversionAttack(descents=("adam",), steps=120, weights=(3.0, 100.0))


def test_an_unprotected_release_gives_the_image_away(scene):
    world = scene()
    result = QUICK.run(world.view)
    assert world.error_left(result) < 0.12
    assert result.reconstructions.dtype == result.own_loss.dtype == np.float32
    assert 0 <= result.reconstructions.min() <= result.reconstructions.max() <= 1
    assert result.queries == 8


def test_a_vector_says_less_than_a_map_and_more_than_nothing(scene):
    left = {vector: (w := scene(vector=vector)).error_left(QUICK.run(w.view)) for vector in (False, True)}
    assert left[False] < left[True] < 0.7


def test_clipping_is_undone(scene):
    """A clip far below the features' norm takes their length away, hardly anything of the image."""
    world = scene(clip=1.0)
    assert world.error_left(QUICK.run(world.view)) < 0.12


def test_noise_makes_it_worse_and_is_not_fitted_to_the_end(scene):
    worlds = [scene(clip=10.0, sigma=sigma) for sigma in (0.0, 0.3, 3.0)]
    results = [QUICK.run(world.view) for world in worlds]
    left = [world.error_left(result) for world, result in zip(worlds, results, strict=True)]
    assert left[0] < left[1] / 2
    assert left[1] < left[2] < 1.2
    assert results[0].selected["steps"] == results[0].selected["of"] == 120
    assert results[1].selected["steps"] < 120


def test_where_nothing_is_left_it_stays_with_the_mean_image(scene):
    world = scene(clip=10.0, sigma=1e4)
    result = QUICK.run(world.view)
    assert result.selected["steps"] == 0
    assert world.error_left(result) == pytest.approx(1.0, abs=0.05)


def test_a_prior_chosen_on_own_images_helps_against_noise(scene):
    world = scene(clip=10.0, sigma=0.3)
    without = world.error_left(replace(QUICK, weights=(0.0,)).run(world.view))
    assert world.error_left(QUICK.run(world.view)) < 0.8 * without


def test_several_releases_are_better_than_one(scene):
    one, six = scene(clip=10.0, sigma=0.3), scene(clip=10.0, sigma=0.3, t=6)
    assert six.error_left(QUICK.run(six.view)) < 0.8 * one.error_left(QUICK.run(one.view))


def test_restarts_never_raise_the_own_loss(scene):
    world = scene(vector=True)
    attack = replace(QUICK, steps=30, weights=(3.0,))
    once, thrice = attack.run(world.view), replace(attack, restarts=3).run(world.view)
    assert (thrice.own_loss <= once.own_loss).all()
    assert (thrice.own_loss < once.own_loss).any()
    assert once.selected == thrice.selected


def test_batches_change_nothing(scene):
    world = scene(t=2)
    whole = replace(QUICK, steps=20, weights=(3.0,)).run(world.view)
    parts = replace(QUICK, steps=20, weights=(3.0,), batch=4).run(world.view)
    np.testing.assert_allclose(whole.reconstructions, parts.reconstructions, atol=1e-3)


def test_a_linear_guess_of_a_vector_says_more_than_a_descent_from_the_mean(scene):
    world = scene(vector=True)
    guessed = replace(QUICK, descents=("ridge_lbfgs",), steps=20).run(world.view)
    assert world.error_left(guessed) < 0.7 * world.error_left(QUICK.run(world.view))
    assert guessed.queries == 8 + 96


def test_the_descent_is_the_one_that_did_best_on_own_images(scene):
    world = scene(clip=10.0, sigma=0.3)
    attack = replace(QUICK, steps=30, weights=(10.0,))
    names = ("adam", "ridge_adam", "ridge_lbfgs")
    alone = {name: replace(attack, descents=(name,)).run(world.view) for name in names}
    assert [alone[name].selected["of"] for name in names] == [30, 30, 15]
    best = max(names, key=lambda name: alone[name].validation)
    whole = replace(attack, descents=names).run(world.view)
    assert whole.selected["descent"] == best
    assert whole.validation == alone[best].validation
    np.testing.assert_array_equal(whole.reconstructions, alone[best].reconstructions)
    again = replace(attack, descents=names).run(replace(world.view))
    np.testing.assert_array_equal(whole.reconstructions, again.reconstructions)


@pytest.mark.parametrize("descents", [(), ("adam", "newton")])
def test_a_descent_nobody_knows_is_refused(scene, descents):
    with pytest.raises(ConfigError, match=r"InversionAttack\.descents: .* must be one or several of adam, r"):
        replace(QUICK, descents=descents).run(scene().view)


def test_lbfgs_explains_releases_sooner(scene):
    world = scene()
    misfit, releases = Misfit(world.view, np.arange(30)), torch.from_numpy(np.array(world.view.releases))
    start = RidgeStart(world.view, "inversion", own_cases(world.view, "inversion"))(releases)
    options = {"weight": 3.0, "steps": 12, "stop": 12}
    _, adam = QUICK.invert(world.view, misfit, releases, [start], **options)
    _, lbfgs = QUICK.invert(world.view, misfit, releases, [start], optimizer="lbfgs", **options)
    assert float(lbfgs.mean()) < 0.8 * float(adam.mean())


def test_of_many_releases_or_where_the_guess_says_nothing_only_what_applies_is_tried(scene):
    attack = InversionAttack(steps=2, weights=(3.0,))
    many = scene(clip=10.0, sigma=0.3, t=5, victims=2)
    misfit, own = Misfit(many.view, np.arange(30)), own_cases(many.view, "inversion")
    ways, ridge = attack._ways(many.view, misfit, own)
    assert [(way.name, way.by) for way in ways] == [("adam", "adam"), ("ridge_adam", "adam")]
    assert ridge.queries == 96 * 5
    alone = replace(attack, descents=("ridge_lbfgs",)).run(many.view)
    assert alone.selected["descent"] == "ridge_adam"
    nothing = scene(clip=10.0, sigma=1e4, victims=2)
    found = replace(attack, descents=("ridge_lbfgs",)).run(nothing.view)
    assert found.selected["descent"] == "adam"


def test_the_priors_slope_is_its_gradient():
    x = torch.rand(3, 3, 9, 7, requires_grad=True)
    weights = torch.tensor([0.0, 2.0, 30.0])
    (expected,) = torch.autograd.grad((weights * total_variation(x)).sum(), x)
    torch.testing.assert_close(total_variation_slope(x.detach(), weights), expected)


def test_a_step_is_that_of_adam_through_the_sum_of_maps():
    """Against autograd through bilinear enlargement and torch's plain Adam, clamps included."""
    start = torch.rand(3, 17, 12)
    goal = torch.rand(2, 3, 17, 12) * 1.4 - 0.2
    fast = Pyramid(start, 2)
    maps = [torch.zeros(2, 3, 17 // 2**n, 12 // 2**n, requires_grad=True) for n in range(4)]
    plain = torch.optim.Adam(maps, 0.05, betas=loop.BETAS)

    def image():
        coarse = [
            torch.nn.functional.interpolate(m, size=(17, 12), mode="bilinear", align_corners=False)
            for m in maps[1:]
        ]
        return start + maps[0] + sum(coarse)

    for step in range(30):
        rate = 0.05 * (1 - step / 40)
        fast.step(2 * (fast.image - goal), rate)
        plain.param_groups[0]["lr"] = rate
        plain.zero_grad()
        (image() - goal).square().sum().backward()
        plain.step()
        with torch.no_grad():
            maps[0] += image().clamp(0, 1) - image()
    torch.testing.assert_close(fast.image, image().detach(), atol=2e-4, rtol=0)
    assert float((fast.image - goal.clamp(0, 1)).abs().mean()) < 0.05, "it went somewhere"


def test_an_image_that_is_still_is_left_alone_and_the_others_go_on(scene, monkeypatch):
    world = scene()
    misfit = Misfit(world.view, np.arange(30))
    releases = torch.from_numpy(np.array(world.view.releases))
    seen = []
    slope = misfit.slope

    def counted(x, wanted, states=None):
        seen.append(len(x))
        result = slope(x, wanted, states)
        return result * (torch.arange(len(x)) > 0).view(-1, 1, 1, 1) if len(x) == len(releases) else result

    monkeypatch.setattr(misfit, "slope", counted)
    monkeypatch.setattr(misfit, "tempering", lambda progress: 1.0)
    weights, start = torch.zeros(len(releases)), torch.linspace(0.2, 0.8, 768).view(3, 16, 16)
    options = {"rate": 0.02, "steps": 40, "stops": [20, 40], "states": lambda: [0]}
    half, whole = descent(misfit, releases, start, weights, **options)
    assert seen[:10] == [6] * 10
    assert seen[10] == 5, f"the first never moved: {seen}"
    assert seen[10:] == sorted(seen[10:], reverse=True)
    assert torch.equal(half[0], whole[0])
    assert torch.equal(whole[0], start)
    monkeypatch.setattr(loop, "STILL", -1.0)
    _, never = descent(misfit, releases, start, weights, **options)
    torch.testing.assert_close(whole[1:], never[1:], atol=2e-3, rtol=0)


def test_the_batch_fits_the_memory(scene, monkeypatch):
    one, four = (Misfit(scene(t=t).view, np.arange(30)) for t in (1, 4))
    each = room.bytes_per_image(one, (3, 16, 16))
    activations = 24 * 8 * 8 * 4  # of stage1 at 16 pixels, float32: some are kept for the way back
    assert activations <= each <= 12 * activations
    # Four edge states keep four times as much, and the releases side by side.
    assert room.bytes_per_image(four, (3, 16, 16)) == pytest.approx(4 * each, rel=0.3)
    assert room.room_for(each, "cpu") == room.CPU_MOST
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.125)
    assert room.room_for(10**8, "cuda") == 50, "half of an eighth of 80 GB"
    assert room.affordable_batch(10**12) == 1


def test_the_edge_is_left_as_it_was(scene):
    world = scene()
    edge = world.view.white_box.edges[0]
    before = {name: value.clone() for name, value in edge.state_dict().items()}
    replace(QUICK, steps=5).run(world.view)
    assert all(torch.equal(value, before[name]) for name, value in edge.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in edge.parameters())
    assert not edge.training


def test_refusals(scene):
    assert QUICK.refuses(scene().view) is None
    assert "weights" in QUICK.refuses(scene(white=False).view)
    view = scene().view
    few = replace(view, aux=replace(view.aux, images=view.aux.images[:5]))
    assert "5 auxiliary images" in QUICK.refuses(few)
    one_group = replace(view, aux=replace(view.aux, groups=np.zeros(120, np.int64)))
    assert "one group" in QUICK.refuses(one_group)


def test_own_cases_are_held_out_and_released_with_noise(scene):
    view = scene(clip=10.0, sigma=0.3).view
    own = own_cases(view, "inversion")
    shown = {image.tobytes() for image in view.aux.images[own.train]}
    held_out = [(image * 255).round().to(torch.uint8).numpy().tobytes() for image in own.images]
    assert shown.isdisjoint(held_out)
    noise = (own.releases - predicted_releases(view, own.images)).std()
    assert noise == pytest.approx(0.3, rel=0.05)


def test_the_misfit_of_the_truth_is_what_noise_makes_it(scene):
    """Half a nat for each of the values, over the number of image values."""
    world = scene(clip=10.0, sigma=0.3, t=6)
    misfit = Misfit(world.view, np.arange(30))
    assert misfit.variance == pytest.approx(0.09)
    truth, releases = torch.from_numpy(world.truth), torch.from_numpy(np.array(world.view.releases))
    expected = 0.5 * releases[0].numel() / (3 * 16 * 16)
    assert float(misfit(truth, releases).mean()) == pytest.approx(expected, rel=0.02)
    assert float(misfit(truth, releases, [1, 4]).mean()) == pytest.approx(expected, rel=0.03)
    # No noise to speak of is a tenth of the releases' variance at first, and what it is in the end.
    clear = Misfit(scene().view, np.arange(30))
    assert clear.tempering(0.0) == pytest.approx(0.1 * clear.spread / clear.variance) == pytest.approx(1000)
    assert clear.tempering(0.0) > clear.tempering(0.3) > clear.tempering(0.69) > clear.tempering(0.7) == 1
    assert Misfit(scene(clip=10.0, sigma=30.0).view, np.arange(30)).tempering(0.0) == 1
    states = misfit.states(np.random.default_rng(0))
    assert len(set(states)) == 4
    assert set(states) <= set(range(6))


def test_the_misfit_allows_for_what_the_wire_rounds_away(scene):
    view = scene(clip=10.0, sigma=0.1).view
    variances = {}
    for wire in ("float32", "int8", "int4"):
        mechanism = replace(view.white_box.mechanism, quantize=wire)
        rounding = replace(view, white_box=replace(view.white_box, mechanism=mechanism))
        variances[wire] = Misfit(rounding, np.arange(30)).variance
        released = own_cases(rounding, "inversion")
        missed = (predicted_releases(rounding, released.images) - released.releases).square().mean()
        assert variances[wire] == pytest.approx(float(missed), rel=0.2)
    assert variances["float32"] == pytest.approx(0.01) == pytest.approx(variances["int8"], rel=0.1)
    assert variances["int4"] > 1.1 * variances["int8"]


def test_the_priors_and_errors_are_what_they_say():
    flat, step = torch.full((1, 3, 9, 9), 0.3), torch.zeros(1, 3, 9, 9)
    step[..., 5:] = 1.0
    assert float(total_variation(flat)) < 0.002
    assert float(total_variation(step)) == pytest.approx(1 / 8, abs=0.002)
    assert float(image_errors(flat, flat)) == pytest.approx(0, abs=1e-6)
    assert float(image_errors(flat, step)) > 0.5


def test_a_budget_shortens_the_descent():
    assert affordable_steps(0.1, 200, 100) == 200
    assert affordable_steps(1.0, 200, 100) == 100
    assert affordable_steps(1000.0, 200, 100) == 20
