"""The release audit: draws through the run's own release code, and the epsilon they prove at least.

An audit refutes, it never proves. The test (view, sign, threshold) is fixed on some draws and counted on
others. Each row's 95 % bound may exceed a tight claim one time in twenty; what refutes is the alarm, at
confidence 1 - 1e-6 over everything that one call looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from privhier.audit.judge import Judge
from privhier.audit.row import AuditRow
from privhier.audit.trials import FAR, Kind, ReleaseFunction, Trials
from privhier.audit.views import Views
from privhier.errors import ConfigError, PrivhierError
from privhier.privacy.accounting import gaussian_mu, solve_sigma
from privhier.seeding import numpy_stream

ALARM = 1e-6
"""Probability with which one call raises a false alarm, at most."""
_MOST_VALUES = 2e9
"""Noise values drawn for the main row at most; half a minute."""
_FEWEST = 8_000
_MOST_REPEATS = 32
_GROSS_DRAWS = 200_000
_ONE = "one record, replaced by any other"


def strength_of(kind: Kind, epsilon: float, delta: float) -> float:
    """The mu (gaussian) or pure epsilon (laplace, letters) that a claim of (epsilon, delta) stands for.

    Raises:
        ConfigError: No such claim: not finite, below 0, or 0 where it is pure.
    """
    if not 0 <= epsilon < np.inf or (kind != "gaussian" and epsilon == 0):
        raise ConfigError(
            key="audit.claimed_epsilon",
            value=epsilon,
            rule="must be finite, and above 0 where it is pure",
            remedy="Nothing is claimed here, so there is nothing to audit",
        )
    if kind != "gaussian":
        return epsilon
    if epsilon == 0:
        return float(2 * ndtri((1 + delta) / 2))  # delta = 2 Phi(mu / 2) - 1
    return gaussian_mu(solve_sigma("gaussian", epsilon, delta, 1.0, 1), 1.0, 1)


@dataclass(frozen=True)
class Claimed:
    """What is claimed of all releases of one record.

    Attributes:
        kind: ``"gaussian"`` (L2 clip) or ``"laplace"`` (L1 clip).
        clip: C, in feature units.
        epsilon: Replace-one, of all ``releases`` together.
        delta: Of the claim; not used by laplace.
        releases: T, at least 1.
    """

    kind: Kind
    clip: float
    epsilon: float
    delta: float
    releases: int


def audit_release(
    release: ReleaseFunction,
    claimed: Claimed,
    *,
    shape: Sequence[int],
    draws: int = 1_000_000,
    seed: int = 0,
    name: str = "release",
    batches: Sequence[tuple[int, int]] = (),
) -> list[AuditRow]:
    """Audit a release function against its claim.

    Args:
        release: The run's own code path; called with batches of a few thousand records, each call with
            its own batch number, epochs from 0.
        claimed: What is held against it.
        shape: Shape of one record's features.
        draws: Trials of the main row, both inputs together, at least 1,000; very wide features get fewer
            (the row says how many).
        seed: Random directions, and where the batch numbers start.
        name: Put before every row's name.
        batches: Epoch and number of records of the batches that the run itself releases, each kind once.

    Returns:
        ``releases`` (the claim itself), ``fresh noise``, ``clipping``, ``other records``,
        ``unequal norms``, ``own batches`` (where ``batches`` are given) and ``non-finite features``.
        Noiseless differences give large finite bounds.

    Raises:
        ConfigError: An argument is out of its range.
        ReleaseError: The code refused ordinary features, e.g. since its noise is no noise.
    """
    kind, clip, releases = claimed.kind, claimed.clip, claimed.releases
    if draws < 1000 or releases < 1 or clip <= 0:
        raise ConfigError(
            key="--draws",
            value=draws,
            rule="must be at least 1000 (and releases at least 1, the clip above 0)",
            remedy="Use 1000000, the default",
        )
    whole = strength_of(kind, claimed.epsilon, claimed.delta)
    first = (seed + 1) * 2**20
    trials = Trials(release, kind=kind, clip=clip, shape=shape, first_batch=first, draws=draws)
    single = whole / (np.sqrt(releases) if kind == "gaussian" else releases)
    views = Views(
        trials,
        single=single,
        releases=releases,
        rng=numpy_stream(seed, "audit", "directions"),
        repeats=max(1, min(_MOST_REPEATS, draws // 4000, 2**18 // trials.values)),
    )
    main = _bounded(draws, trials.values * releases, _MOST_VALUES)
    gross = _bounded(min(draws, _GROSS_DRAWS), 2 * trials.values, _MOST_VALUES / 8)
    # Counting stays sharp while the rarer error has some eighty counts.
    limit = 2.5 if kind == "gaussian" else max(2.0, float(np.log(main / 320)))
    groups = {
        "releases": (views.plain(limit), "far inputs, likelihood-ratio test", _ONE, whole, main),
        "fresh noise": (
            views.fresh(),
            "noise estimated from what the adversary knows, per single release",
            _ONE,
            single,
            gross,
        ),
        "clipping": (views.clipping(), "inputs that clipping should make equal", "none: equal", 0.0, gross),
        "other records": (
            views.others(),
            "what others' releases say about the target",
            "the target replaced, the others kept",
            0.0,
            gross,
        ),
        "unequal norms": (
            views.unequal(),
            "inputs of unequal norms, per single release",
            _ONE,
            single,
            gross,
        ),
    }
    if batches:
        groups["own batches"] = (
            views.own_batches(batches),
            "batches as large as the run's own, per single release",
            _ONE,
            single,
            gross,
        )
    tests = sum(len(group[0]) + 1 for group in groups.values())
    judge = Judge(kind, claimed.delta if kind == "gaussian" else 0.0, 1 - ALARM / tests)
    rows = [
        judge.row(f"{name}: {title}", what, adjacency, claim, found, count)
        for title, (found, what, adjacency, claim, count) in groups.items()
    ]
    return [*rows, non_finite(release, shape, clip, f"{name}: non-finite features")]


def non_finite(release: ReleaseFunction, shape: Sequence[int], clip: float, name: str) -> AuditRow:
    """One value of one record of a batch is not finite: the batch must be refused."""
    through = []
    for number, bad in enumerate((float("nan"), float("inf"), float("-inf"))):
        features = torch.full((8, *shape), clip / FAR)
        features.view(8, -1)[3, -1] = bad
        try:
            release(features, epoch=0, batch=number)
        except PrivhierError:
            continue
        through.append(str(bad))
    return AuditRow(
        name=name,
        what="one value that is not finite in a batch of eight",
        adjacency="none: it must be refused",
        draws=3,
        refuted=bool(through),
        note=f"let through: {', '.join(through)}" if through else "refused",
    )


def _bounded(draws: int, values: int, most: float) -> int:
    return int(min(draws, max(_FEWEST, most / values)))
