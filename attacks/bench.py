"""Runs attackers on a view, one after the other, each finished one on disk before the next starts."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from privhier.attacks.base import Attack, AttackResult
from privhier.attacks.once import clocked
from privhier.attacks.view import View
from privhier.errors import CheckpointError, PrivhierError, TrainingError
from privhier.storage.locks import exclusive
from privhier.storage.sealed import Sealed

_ARRAYS = ("probabilities", "predictions", "embeddings", "reconstructions", "own_loss", "shares")


@dataclass(frozen=True)
class BenchEntry:
    """One attacker's outcome: a result, or the reason why it does not apply."""

    attack: Attack
    name: str
    result: AttackResult | None
    refusal: str | None = None


def run_bench(
    attacks: Sequence[tuple[str, Attack]],
    view: View,
    folder: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[BenchEntry]:
    """Run every attack on ``view``; what ``folder`` already holds is read, not run again.

    Several processes may share ``folder``: an attack that one of them runs, the others wait for.

    Args:
        attacks: Registered name and attack.
        view: The threat model's knowledge.
        folder: Where finished attacks are kept (``.npz`` without pickle); one folder a view.
        progress: Called with a description, attacks done and attacks in all.
    """
    entries = []
    for number, (name, attack) in enumerate(attacks):
        if progress is not None:
            target = attack.target or attack.kind
            progress(f"attack: {name} on {target} ({view.threat_model})", number, len(attacks))
        refusal = attack.refuses(view)
        if refusal is not None:
            entries.append(BenchEntry(attack, name, None, refusal))
            continue
        entries.append(BenchEntry(attack, name, _once(name, attack, view, folder)))
    if progress is not None:
        progress(f"attack: {view.threat_model}", len(attacks), len(attacks))
    return entries


def _once(name: str, attack: Attack, view: View, folder: Path) -> AttackResult:
    result = stored_result(folder, name, attack)
    if result is not None:
        return result
    with exclusive(folder / ".lock"):
        result = stored_result(folder, name, attack)  # another process may have run it meanwhile
        if result is None:
            result, seconds = _run(name, attack, view)
            result = replace(result, seconds=seconds)
            _save(_path(folder, name, attack), result)
    return result


def _run(name: str, attack: Attack, view: View) -> tuple[AttackResult, float]:
    where = f"attacks.{attack.kind}.{name}"
    try:
        result, seconds = clocked(view, lambda: attack.run(view))
    except TrainingError as error:
        key = f"{where}.options.{error.key}" if error.key == "learning_rate" else error.key
        raise TrainingError(key=key, value=error.value, rule=error.rule, remedy=error.remedy) from error
    except (PrivhierError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever somebody's attack raises: it is named
        raise TrainingError(
            key=where,
            value=repr(attack),
            rule=f"this attack failed: {type(error).__name__}: {error}",
            remedy="Mend it, or leave it out",
        ) from error
    if fault := _fault(result, attack, view):
        raise TrainingError(
            key=where,
            value=repr(attack),
            rule=f"this attack's answer is none: {fault}",
            remedy="Mend it: AttackResult says what each kind answers",
        )
    for array in _ARRAYS:
        found = getattr(result, array)
        if found is not None and not np.isfinite(found).all():
            raise TrainingError(
                key=where,
                value=repr(attack),
                rule=f"this attack's {array} are not finite: its training exploded",
                remedy="Lower its learning rate, or leave its options out",
            )
    return result, seconds


def _fault(result: AttackResult, attack: Attack, view: View) -> str | None:
    """What an attribute attacker's answer lacks; finite values are looked for by the caller."""
    if attack.kind != "attribute":
        return None
    n, classes = len(view.releases), view.aux.n_classes.get(attack.target, 0)
    said, chosen = result.probabilities, result.predictions
    if said is None or np.shape(said) != (n, classes):
        return f"probabilities of shape {None if said is None else np.shape(said)}, not {(n, classes)}"
    if np.isfinite(said).all() and (np.min(said) < -1e-4 or np.abs(np.sum(said, axis=1) - 1).max() > 1e-3):
        return "probabilities that are negative, or whose rows do not sum to 1"
    if chosen is None or np.shape(chosen) != (n,) or not np.isin(chosen, np.arange(classes)).all():
        return f"predictions that are not {n} classes in 0..{classes - 1}"
    return None


def stored_result(folder: Path, name: str, attack: Attack) -> AttackResult | None:
    """What ``run_bench`` stored of this attack in ``folder``, or None."""
    path = _path(folder, name, attack)
    if not path.exists():
        return None
    try:
        return _load(Sealed(folder).checked(path))
    except CheckpointError:
        return None  # edited or damaged, and easily had again: it is simply run once more


def _path(folder: Path, name: str, attack: Attack) -> Path:
    key = repr(attack) + _source_of(type(attack))
    return folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"


def _source_of(kind: type[Attack]) -> str:
    """What somebody else's attack does, as written now: in a notebook a class changes under its name."""
    if kind.__module__.startswith("privhier."):
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return secrets.token_hex()  # nobody can tell whether it is the same: it is run again


def _save(path: Path, result: AttackResult) -> None:
    arrays = {name: getattr(result, name) for name in _ARRAYS if getattr(result, name) is not None}
    rest = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in _ARRAYS}
    with Sealed(path.parent).writing(path) as stream:
        np.savez(stream, meta=np.array(json.dumps(rest, default=_plain)), **arrays)


def _load(path: Path) -> AttackResult:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in _ARRAYS if name in stored.files}
        rest = json.loads(str(stored["meta"]))
    return AttackResult(**arrays, **rest)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
