"""The verbs ``privhier run``, ``train``, ``attack``, ``audit`` and ``report``: one run and its parts."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privhier.cli.additions import add_to
from privhier.cli.arguments import ConfigArgument, Moved, Overrides, ResumeOption, RunArgument
from privhier.cli.console import progress_bar, say
from privhier.process.stopping import interruptible

if TYPE_CHECKING:
    from privhier.config import RunConfig
    from privhier.evaluation.limits import Checked

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder; default: runs/NAME-HASH", show_default=False)
]

ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Write OUT/profile: where the time of an epoch of each phase goes")
]


def run(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    profile: ProfileOption = False,
) -> None:
    """The main job: train, attack, account, log to MLflow, write the report."""
    _quiet(profile)
    from privhier import session as job
    from privhier.config import load_config
    from privhier.report.summary import summarize

    resolved = load_config(config, overrides or ())
    folder = _folder(resolved, out)
    command = _command("run", config, overrides, folder)
    with interruptible(f"{command} --resume"), progress_bar() as progress:
        session = job.open_session(resolved, folder, resume=resume, progress=progress)
        session.profile = profile
        result = job.run(session, command=command)
    say(*summarize(result), f"report: {session.folder.report}", *_profiles(session.folder.profile, profile))


def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    profile: ProfileOption = False,
) -> None:
    """Train only: edge, cloud and the unprotected references; `attack` goes on from there."""
    _quiet(profile)
    from privhier import session as job
    from privhier.config import load_config

    resolved = load_config(config, overrides or ())
    folder = _folder(resolved, out)
    command = _command("train", config, overrides, folder)
    with interruptible(f"{command} --resume"), progress_bar() as progress:
        session = job.open_session(resolved, folder, resume=resume, progress=progress)
        session.profile = profile
        job.train(session)
    say(
        f"trained: {folder}",
        f"next:    privhier attack {folder}",
        *_profiles(session.folder.profile, profile),
    )


def attack(
    run: RunArgument,
    overrides: Moved = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            metavar="NAME[,KEY=VALUE]...",
            help="One more attack, with its options, on a finished run's stored releases; may be repeated",
        ),
    ] = None,
) -> None:
    """Attack a trained run with fresh attackers, account, and write result.json.

    With --add: run one more attack on a finished run and record it as an addition. The configuration and its
    hash stay; leakage is the worst of all attackers, so an addition may raise it and never lowers it.
    """
    from privhier import session as job
    from privhier.training.trained import load_trained

    if add:
        add_to(run, add, overrides or [])
        return
    with interruptible(f"privhier attack {run}"), progress_bar() as progress:
        session = job.reopen_session(run, overrides or (), progress=progress)
        trained = load_trained(session.config, session.prepared.data, session.folder)
        job.attack(session, trained)
    say(f"attacked: {session.folder.result}", f"next:     privhier report {run}")


def audit(
    run: RunArgument,
    overrides: Moved = None,
    draws: Annotated[int, typer.Option("--draws", min=1000, help="Trials of the main rows")] = 1_000_000,
    canaries: Annotated[
        int,
        typer.Option("--canaries", min=0, help="Gradient canaries for DP-SGD on the edge; 0: none"),
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything the auditor draws")] = 0,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-above",
            metavar="ATTRIBUTE:NUMBER",
            help="Exit with 1 if this attribute's certificate (without one: the worst attacker's upper "
            "interval end) is above, AUC or balanced accuracy, the larger; may be repeated",
        ),
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Draw nothing: hold the result against the limits")
    ] = False,
) -> None:
    """Hold a run's claims against draws through its own code; exits with 1 if one is refuted.

    Where the edge was trained under DP-SGD it is trained once more with canaries, which needs the data set.
    What result.json claims is held against limits on leakage besides, where some are given: 1 too if one is
    broken.
    """
    from privhier.audit.audit import audit_run
    from privhier.audit.dp_sgd import canary_rows

    checked = _limits(run, fail_above or [], overrides or [], check_only=check_only)
    broken = any(one.above for one in checked)
    if check_only:
        say(*(one.line() for one in checked))
        raise typer.Exit(1 if broken else 0)
    more = (partial(canary_rows, canaries=canaries),) if canaries else ()
    with interruptible(f"privhier audit {run}"), progress_bar() as progress:
        report = audit_run(
            run, draws=draws, seed=seed, more=more, overrides=overrides or (), progress=progress
        )
    say(*report.lines(), *(one.line() for one in checked), f"audit: {run / 'audit.json'}")
    if report.refuted or broken:
        raise typer.Exit(1)


def _limits(run: Path, texts: list[str], overrides: list[str], *, check_only: bool) -> list[Checked]:
    """The limits held against the run's result: before a long audit, so that bad input costs nothing."""
    from privhier.errors import ConfigError
    from privhier.evaluation.limits import check_limits, parse_limit
    from privhier.evaluation.result import Result
    from privhier.training.folder import RunFolder
    from privhier.training.occupancy import saved_config

    if check_only and not texts:
        raise ConfigError(
            key="--check-only",
            value=True,
            rule="has nothing to check without --fail-above",
            remedy="Add a limit: --fail-above ATTRIBUTE:0.55",
        )
    limits = [parse_limit(text) for text in texts]
    if not limits:
        return []
    folder = RunFolder(run)
    saved_config(folder, overrides)  # a folder that was altered is refused
    return check_limits(Result.of_run(folder.sealed, folder.result), limits)


def report(run: RunArgument, overrides: Moved = None) -> None:
    """Write report.html again from a finished run, or a sweep's page from its points."""
    from privhier.evaluation.points import is_sweep

    if is_sweep(run):
        from privhier.sweeps.publish import publish

        with progress_bar() as progress:
            page, notes = publish(run, progress=progress)
        say(f"report: {page}", *notes)
        return
    from privhier import session as job
    from privhier.evaluation.result import Result
    from privhier.training.trained import load_trained

    with progress_bar() as progress:
        session = job.reopen_session(run, overrides or (), progress=progress)
        trained = load_trained(session.config, session.prepared.data, session.folder)
        result = Result.of_run(session.folder.sealed, session.folder.result)
        path = job.report(session, result, trained, command=f"privhier report {run}")
    say(f"report: {path}")


def _quiet(profile: bool) -> None:
    """Before torch is loaded: its profiler would call a missing GPU an error."""
    if profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "9")


def _profiles(folder: Path, asked: bool) -> list[str]:
    """What to say of the profiles of a training."""
    tables = sorted(folder.glob("*.md")) if asked else []
    if asked and not tables:
        return ["profile: nothing was trained, so there is nothing to profile"]
    return [f"profile: {path}" for path in tables]


def _folder(config: RunConfig, given: Path | None) -> Path:
    return given if given is not None else Path("runs") / config.folder_name


def _command(verb: str, config: Path, overrides: list[str] | None, folder: Path) -> str:
    return shlex.join(["privhier", verb, str(config), *(overrides or ()), "--out", str(folder)])
