"""Multi-objective search over a sweep's axes with Optuna, one generation of trials after the other.

Objectives: the mean task AUC, up; the headline leakage of each sensitive attribute, down (below guessing it
counts as guessing); both means over the seeds. A generation is suggested as a whole, from the finished ones
only: what is suggested depends on the seed and on results, not on workers or engines, and a killed search
goes on as it would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from privhier.errors import CheckpointError, ConfigError
from privhier.evaluation.headline import chance, counted, headline
from privhier.evaluation.result import AttributeLeakage, Result
from privhier.seeding import stream_seed
from privhier.sweeps.axis import Axis
from privhier.sweeps.spec import Point, Search, Sweep
from privhier.sweeps.state import SweepFolder

Steps = dict[str, Any]
"""Axis label to the step taken on it: a listed value's or variant's position, or a drawn number."""


def check_search() -> None:
    """Refuse a search where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            key="SWEEP search",
            value="optuna",
            rule="needs Optuna, which is not installed",
            remedy="pip install 'privhier[optuna]', or remove `search` for the full grid",
        ) from error


def run_search(sweep: Sweep, folder: SweepFolder, work: Callable[[list[Point]], None]) -> None:
    """Suggest, work, learn, until the trials are used up.

    Args:
        sweep: With a ``search`` section.
        folder: Its ``search.json`` holds the suggestions made so far.
        work: Computes points, and returns when each is done or failed.
    """
    search = sweep.file.search
    if search is None:
        raise ValueError("a sweep without a search section")
    trials = _read(folder, sweep)
    first = 0
    while first < search.n_trials:
        size = min(search.generation, search.n_trials - first)
        if len(trials) < first + size:
            finished = [(trial, _objectives(sweep, folder, trial)) for trial in trials[:first]]
            trials = trials[:first] + _suggest(sweep, search, finished, trials[first:], size)
            folder.sealed.write_json(folder.search, {"sweep_hash": sweep.hash(), "trials": trials})
        points = [point for trial in trials[first : first + size] for point in points_of(sweep, trial)]
        work(list({point.id: point for point in points}.values()))
        first += size


def points_of(sweep: Sweep, trial: Steps) -> list[Point]:
    """A trial's points, one a seed."""
    steps = tuple(_step(axis, trial[axis.label]) for axis in sweep.file.axes)
    return list(sweep.setting(steps))


def objectives(results: Sequence[Result]) -> list[float]:
    """Mean task AUC, then the headline leakage of each attribute, means over the results."""
    attributes = list(results[0].leakage)
    rows = [
        [result.utility_mean.auc.value, *(_leak(name, result.leakage[name]) for name in attributes)]
        for result in results
    ]
    return [float(value) for value in np.mean(rows, axis=0)]


def _objectives(sweep: Sweep, folder: SweepFolder, trial: Steps) -> list[float] | None:
    folders = [folder.point(point.id) for point in points_of(sweep, trial)]
    if not all(one.result.exists() for one in folders):
        return None
    return objectives([Result.of_run(one.sealed, one.result) for one in folders])


def _leak(name: str, leakage: AttributeLeakage) -> float:
    top = headline(leakage)
    if top is None:
        raise ValueError(f"no attacker on {name} has a score")
    return counted(top.score.value, chance(leakage, top.metric))


def _suggest(
    sweep: Sweep,
    search: Search,
    finished: list[tuple[Steps, list[float] | None]],
    begun: list[Steps],
    size: int,
) -> list[Steps]:
    """One generation: what an interrupted or shorter search began of it, and new suggestions."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {axis.label: _distribution(axis) for axis in sweep.file.axes}
    scored = [(trial, values) for trial, values in finished if values is not None]
    falling = len(scored[0][1]) - 1 if scored else len(sweep.data["dataset"]["sensitive"])
    directions: list[Any] = ["maximize", *["minimize"] * falling]
    seed = stream_seed(search.seed, "generation", len(finished), len(begun)) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.generation)
        study = optuna.create_study(directions=directions, sampler=sampler)
        for trial, values in scored:
            study.add_trial(optuna.create_trial(params=trial, distributions=spaces, values=values))
        suggested = [study.ask(spaces).params for _ in range(size - len(begun))]
    return [*begun, *({name: _plain(value) for name, value in one.items()} for one in suggested)]


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    draws = axis.random
    if draws is None:
        return CategoricalDistribution(list(range(len(axis.steps()))))
    if draws.integer:
        return IntDistribution(int(draws.low), int(draws.high), log=draws.log)
    return FloatDistribution(draws.low, draws.high, log=draws.log)


def _step(axis: Axis, value: Any) -> tuple[Any, dict[str, Any]]:
    if axis.random is not None:
        return value, {str(axis.key): value}
    steps = axis.steps()
    if not isinstance(value, int) or value >= len(steps):
        raise CheckpointError(
            key="search.json",
            value=value,
            rule=f"names a value that the axis {axis.label} no longer has",
            remedy="Put the removed value back at its place, or remove search.json to search anew",
        )
    return steps[value]


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else float(value)


def _read(folder: SweepFolder, sweep: Sweep) -> list[Steps]:
    if not folder.search.exists():
        return []
    trials: list[Steps] = folder.sealed.read_json(folder.search)["trials"]
    labels = {axis.label for axis in sweep.file.axes}
    if any(set(trial) != labels for trial in trials):
        raise CheckpointError(
            key="search.json",
            value=str(folder.search),
            rule="was made with other axes",
            remedy="Use the same axes, or remove search.json to search anew",
        )
    return trials
