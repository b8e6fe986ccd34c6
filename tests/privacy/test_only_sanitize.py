"""Only ``ReleaseMechanism.sanitize`` makes a release: nobody forges, copies or alters one."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle

import numpy as np
import pytest
import torch

from privhier.errors import ReleaseError
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import Release, ReleaseMechanism, as_releases

GAUSS = ReleaseMechanism("gaussian", 1.0, 0.5)


def made(rows: int = 3, mechanism: ReleaseMechanism = GAUSS) -> Release:
    return mechanism.sanitize(torch.ones(rows, 4), SeededNoise(0, "only"))


FORGERIES = {
    "called": lambda: Release(torch.ones(2, 4)),
    "called by names": lambda: Release(values=torch.ones(2, 4), mechanism=GAUSS, noise_source="system"),
    "called with nothing": lambda: Release(),
    "past the constructor": lambda: as_releases(object.__new__(Release)),
    "copied": lambda: copy.copy(made()),
    "copied deeply": lambda: copy.deepcopy(made()),
    "pickled": lambda: pickle.loads(pickle.dumps(made())),
    "in a subclass": lambda: type("Mine", (Release,), {}),
    "a tensor": lambda: as_releases(torch.ones(2, 4)),
    "an array": lambda: as_releases(np.ones((2, 4), np.float32)),
    "a list of tensors": lambda: as_releases([made(), torch.ones(2, 4)]),
    "nothing": lambda: as_releases(None),
    "arithmetic": lambda: as_releases(made() * 1000),
    "its values": lambda: as_releases(made().values),
    "a look-alike": lambda: as_releases(LookAlike()),
}


class LookAlike:
    values, mechanism, noise_source = torch.full((2, 4), 1000.0), GAUSS, "seeded"

    def __len__(self):
        return 2

    def payload(self):
        return self.values.numpy()


@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_release_is_made_by_another_hand(forgery):
    with pytest.raises(ReleaseError, match=r"only ReleaseMechanism\.sanitize makes a release") as caught:
        FORGERIES[forgery]()
    assert "mechanism.sanitize" in caught.value.remedy


def test_it_has_no_fields_that_could_be_replaced():
    release = made()
    with pytest.raises(TypeError):
        dataclasses.replace(release, values=torch.ones(2, 4))
    for name in ("values", "mechanism", "noise_source", "payload", "anything"):
        with pytest.raises(AttributeError):
            setattr(release, name, torch.ones(3, 4))
        with pytest.raises(AttributeError):
            object.__setattr__(release, name, torch.ones(3, 4))


@pytest.mark.parametrize("mechanism", [GAUSS, ReleaseMechanism("none"), ReleaseMechanism("gaussian", 9.0)])
def test_what_goes_up_is_what_was_made(mechanism):
    """Neither a change of the features nor one of a payload reaches it; one of its values is refused."""
    features = torch.ones(3, 4)
    release = mechanism.sanitize(features, SeededNoise(0, "only"))
    before = release.payload()
    release.payload()[:] = 1000
    assert np.array_equal(release.payload(), before)
    for change in (
        lambda one: one.values.mul_(1000),
        lambda one: one.values.data.fill_(1000),
        lambda one: one.values.numpy().fill(1000),
        lambda one: torch.add(one, 1000, out=one.values),
    ):
        release = mechanism.sanitize(torch.ones(3, 4), SeededNoise(0, "only"))
        change(release)
        with pytest.raises(ReleaseError, match="what goes up must be what"):
            release.payload()


def test_features_that_change_afterwards_do_not_go_up():
    features = torch.ones(3, 4)
    release = ReleaseMechanism("none").sanitize(features, SeededNoise(0, "only"))
    features.fill_(1000)
    with pytest.raises(ReleaseError, match="what goes up must be what"):
        release.payload()


def test_arithmetic_and_torch_give_plain_tensors():
    release = made()
    values, other = release.values, torch.arange(12.0).reshape(3, 4)
    pairs = [
        (release + 1, values + 1), (1 + release, values + 1), (release - other, values - other),
        (other - release, other - values), (2 - release, 2 - values), (release * 2, values * 2),
        (2.0 * release, values * 2), (release / 2, values / 2), (-release, -values),
        (release[1:], values[1:]), (other + release, values + other), (torch.cat([release, other]), None),
        (torch.relu(release), torch.relu(values)), (release + release, values + values),
    ]  # fmt: skip
    for got, wanted in pairs:
        assert type(got) is torch.Tensor
        assert wanted is None or torch.equal(got, wanted)
    assert (len(release), release.shape) == (3, (3, 4))


def test_it_says_how_it_was_made_and_keeps_the_graph():
    z = torch.ones(3, 4, requires_grad=True)
    release = GAUSS.sanitize(z, SystemNoise())
    assert (release.mechanism, release.noise_source) == (GAUSS, "system")
    assert "noise_source='system'" in repr(release)
    release.values.sum().backward()
    assert z.grad is not None
    assert np.array_equal(release.payload(), release.values.detach().numpy())


def test_a_release_that_is_gone_is_forgotten():
    from privhier.privacy.made import _MADE

    gc.collect()
    before = len(_MADE)
    release = made()
    assert len(_MADE) == before + 1
    del release
    gc.collect()
    assert len(_MADE) == before


def test_a_mechanism_that_makes_something_else_is_refused():
    class Wide(ReleaseMechanism):
        def _randomized(self, z, noise):
            return z.repeat(1, 2)

    with pytest.raises(ReleaseError, match="must be float32"):
        Wide("gaussian", 1.0, 0.5).sanitize(torch.ones(3, 4), SeededNoise(0, "only"))
