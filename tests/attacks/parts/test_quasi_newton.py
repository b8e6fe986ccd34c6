"""L-BFGS for many images at once: each as if alone, never uphill, within the box."""

import pytest
import torch

from privhier.attacks.parts.quasi_newton import QuasiNewton, history_bytes


def bowls(images, size=6, stiff=100.0):
    """Convex quadratics whose curvatures differ by ``stiff``, with minima inside and outside of the box."""
    rng = torch.Generator().manual_seed(1)
    goal = torch.rand(images, 3, size, size, generator=rng) * 1.4 - 0.2
    curvature = stiff ** torch.rand(images, 3, size, size, generator=rng)
    return goal, curvature


def look(x, goal, curvature):
    """Misfit and no prior."""
    value = 0.5 * (curvature * (x - goal).square()).flatten(1).sum(dim=1)
    slope = curvature * (x - goal)
    return torch.stack([value, torch.zeros_like(value)]), torch.stack([slope, torch.zeros_like(slope)])


def descended(goal, curvature, steps):
    walk, values = QuasiNewton(torch.full((3, 6, 6), 0.5), len(goal)), []
    for _ in range(steps):
        walk.step(*look(walk.trial, goal, curvature), 1.0)
        values.append(look(walk.image, goal, curvature)[0][0])
    return walk, torch.stack(values)


def test_it_finds_the_minimum_in_the_box_and_never_goes_uphill():
    goal, curvature = bowls(4)
    walk, values = descended(goal, curvature, 80)
    assert (values[1:] <= values[:-1]).all()
    assert 0 <= float(walk.trial.min()) <= float(walk.trial.max()) <= 1
    torch.testing.assert_close(walk.image, goal.clamp(0, 1), atol=2e-3, rtol=0)


def test_it_needs_far_fewer_steps_than_the_slope_alone():
    goal, curvature = bowls(3)
    goal = goal.clamp(0.1, 0.9)
    _, values = descended(goal, curvature, 40)
    x = torch.full_like(goal, 0.5)
    for _ in range(40):
        x = x - (goal.new_tensor(1.0) / 100) * look(x, goal, curvature)[1][0]
    assert (values[-1] < 0.05 * look(x, goal, curvature)[0][0]).all()


def test_each_is_moved_as_if_alone():
    goal, curvature = bowls(5)
    together, _ = descended(goal, curvature, 25)
    for row in range(5):
        alone, _ = descended(goal[[row]], curvature[[row]], 25)
        torch.testing.assert_close(together.image[[row]], alone.image, atol=1e-5, rtol=0)


def test_a_move_that_brings_nothing_is_taken_back_and_shortened():
    goal, curvature = bowls(2)
    walk, _ = descended(goal, curvature, 6)
    image, trial = walk.image.clone(), walk.trial.clone()
    worse = look(trial, goal, curvature)
    worse[0][0, 0] = 1e6
    walk.step(*worse, 1.0)
    assert torch.equal(walk.image[0], image[0])
    assert torch.equal(walk.image[1], trial[1])
    far, near = (trial - image)[0].abs().amax(), (walk.trial - walk.image)[0].abs().amax()
    assert 0 < near < 0.5 * far
    broken = look(walk.trial, goal, curvature)
    broken[0][0, 0], broken[1][0, 0] = torch.nan, torch.nan
    before = walk.image[0].clone()
    walk.step(*broken, 1.0)
    assert torch.equal(walk.image[0], before)
    assert bool(walk.trial.isfinite().all())


def test_those_that_are_kept_go_on_as_before():
    goal, curvature = bowls(4)
    rows = torch.tensor([3, 1])
    whole, _ = descended(goal, curvature, 10)
    part, _ = descended(goal, curvature, 10)
    part.keep(rows)
    for _ in range(10):
        whole.step(*look(whole.trial, goal, curvature), 1.0)
        part.step(*look(part.trial, goal[rows], curvature[rows]), 1.0)
    torch.testing.assert_close(part.image, whole.image[rows], atol=1e-6, rtol=0)


def test_a_prior_whose_weight_sinks_is_weighed_anew():
    """With the prior at a tenth, an image it held back moves on to the weaker compromise."""
    goal = torch.full((1, 3, 6, 6), 0.9)

    def both(x):
        misfit, prior = x - goal, 10 * x
        values = torch.stack([v.square().flatten(1).sum(1) / 2 for v in (misfit, 10**0.5 * x)])
        return values, torch.stack([misfit, prior])

    walk = QuasiNewton(torch.full((3, 6, 6), 0.5), 1)
    reached = []
    for share in (1.0, 0.1):
        for _ in range(25):
            walk.step(*both(walk.trial), share)
        reached.append(float(walk.image.mean()))
    assert reached == pytest.approx([0.9 / 11, 0.9 / 2], abs=1e-3)


def test_its_memory_is_counted():
    walk = QuasiNewton(torch.zeros(3, 6, 6), 7)
    assert history_bytes((3, 6, 6)) == (walk._moves.nbytes + walk._changes.nbytes) / 7
