"""A run with adversaries of its own and restarts, killed and resumed, is the one that ran through."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

helpers = runpy.run_path(str(Path(__file__).parents[1] / "training" / "test_trainer.py"))
small_config = helpers["small_config"]


@pytest.mark.parametrize("stop", [("pretrain", 1), ("joint", 0)])
def test_resuming_gives_the_undisturbed_numbers(tmp_path, stop):
    config = small_config(
        epochs=(2, 1, 0),
        batch=48,
        release={"mechanism": "gaussian", "sigma": 0.3},
        defense={
            "name": "max_entropy",
            "options": {"adversaries": 2, "restart_every": 3, "target": "prior", "adversary_steps": 1},
        },
    )
    whole = helpers["trainer"](config, tmp_path / "a")
    undisturbed = whole.run()
    broken = helpers["trainer"](config, tmp_path / "b")
    phase, epoch = stop
    work = broken._steps[phase]

    def fail(number: int):
        metrics = work(number)
        if number == epoch:
            raise KeyboardInterrupt  # after the work, before the checkpoint
        return metrics

    broken._steps[phase] = fail
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    again = helpers["trainer"](config, tmp_path / "b")
    resumed = again.run()
    assert helpers["same"](helpers["weights"](undisturbed), helpers["weights"](resumed))
    assert undisturbed.history == resumed.history
    states = [trainer.edge.defense.state_dict() for trainer in (whole, again)]
    assert int(states[0]["steps"]) > 6  # steps enough for restarts
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
