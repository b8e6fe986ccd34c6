"""Damage run, edge, cloud and sweep folders at random; every verb must refuse, or end in the same numbers.

Run as a script: ``python tests/corruption/campaign.py --trials 300`` (``make corrupt``). Each trial copies
one finished or half-finished folder, flips a bit of one of its files, cuts it or empties it, and then calls
every verb that reads such a folder, each on a copy of its own. An outcome is

- ``same``: the numbers of the undamaged folder (what was damaged is not read, or was computed again);
- ``refused``: a typed error of ours;
- ``different``: other numbers and no word about it. This must never happen;
- ``traceback``: an error that is not ours. This must not happen either.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import privhier as privhier  # before torch: it limits how long OpenMP's threads spin

# isort: split
import torch

sys.path.insert(0, str(Path(__file__).parent))

from folders import pair, run, stopped_after, sweep, sweep_file, tiny  # type: ignore[import-not-found]

from privhier import session as job
from privhier.audit.audit import audit_run
from privhier.distributed.join import join
from privhier.errors import PrivhierError
from privhier.evaluation.result import Result
from privhier.sweeps.publish import publish
from privhier.training.deploy import load_edge
from privhier.training.trained import load_trained
from privhier.training.trainer import Trainer

REPOSITORY = Path(__file__).parents[2]
Verb = Callable[[Path], Any]
OUTCOMES = ("same", "refused", "different", "traceback")


def numbers(folder: Path) -> Any:
    """``result.json`` without what may differ between two runs."""
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name not in ("timing", "git")}


def digest(*paths: Path) -> list[str]:
    """SHA-256 of files."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def resume(root: Path) -> Any:
    run(tiny(REPOSITORY), root)
    return numbers(root)


def attack(root: Path) -> Any:
    session = job.reopen_session(root)
    job.attack(session, load_trained(session.config, session.prepared.data, session.folder))
    return numbers(root)


def report(root: Path) -> Any:
    session = job.reopen_session(root)
    trained = load_trained(session.config, session.prepared.data, session.folder)
    result = Result.of_run(session.folder.sealed, session.folder.result)
    page = job.report(session, result, trained, command="privhier report")
    return [numbers(root), trained.history, page.stat().st_size > 1000]


def audit(root: Path) -> Any:
    return [row.model_dump() for row in audit_run(root, draws=1000).rows]


def deploy(root: Path) -> Any:
    edge = load_edge(root)
    state = {name: value.numpy().tobytes() for name, value in edge.edge.state_dict().items()}
    return [hashlib.sha256(b"".join(state.values())).hexdigest(), repr(edge.mechanism)]


def deploy_edge(root: Path) -> Any:
    return deploy(root / "edge")


def go_on(root: Path) -> Any:
    pair(tiny(REPOSITORY), root)
    return digest(root / "edge" / "edge.safetensors", root / "cloud" / "tail.safetensors")


def put_together(root: Path) -> Any:
    out = root / "joined"
    try:
        join(root / "edge", root / "cloud", out)
    except PrivhierError:
        if out.exists() or list(root.glob(".joined*")):
            raise AssertionError("a refused join left a folder behind") from None
        raise
    names = ("edge.safetensors", "tail.safetensors", "ledger.jsonl", "releases/test.npy")
    return digest(*(out / name for name in (*names, "releases/training_victims.npy")))


def sweep_on(root: Path) -> Any:
    summary = sweep(root.parent / f"{root.name}.yaml", root)
    if summary.failed:
        kind = summary.failed[0][1].partition(":")[0]
        if kind not in {one.__name__ for one in _kinds(PrivhierError)}:
            raise AssertionError(f"a point failed untyped: {summary.failed[0][1]}")
        raise Refused(summary.failed[0][1])
    return [numbers(path.parent) for path in sorted((root / "points").glob("*/result.json"))]


def sweep_page(root: Path) -> Any:
    publish(root)
    text = (root / "points.csv").read_text()
    if "failed" in text:
        raise Refused("a point is shown as failed")
    return text


class Refused(Exception):  # noqa: N818  (an outcome, not an error)
    """What a sweep says of a point instead of raising."""


def _kinds(kind: type) -> list[type]:
    return [kind, *(one for sub in kind.__subclasses__() for one in _kinds(sub))]


@dataclass(frozen=True)
class Case:
    """A kind of folder.

    Attributes:
        name: What it is called.
        make: Makes it.
        verbs: What reads it.
    """

    name: str
    make: Verb
    verbs: dict[str, Verb]


def half(root: Path) -> None:
    stopped_after(Trainer, 3, lambda: job.train(job.open_session(tiny(REPOSITORY), root)))


def whole_sweep(root: Path) -> None:
    sweep(sweep_file(REPOSITORY, root.parent / f"{root.name}.yaml"), root)


READERS = {"attack": attack, "report": report, "audit": audit, "load_edge": deploy}
CASES = [
    Case("run", lambda root: run(tiny(REPOSITORY), root), {"resume": resume, **READERS}),
    Case("half run", half, {"resume": resume, **READERS}),
    Case(
        "edge and cloud",
        lambda root: pair(tiny(REPOSITORY), root),
        {"resume": go_on, "join": put_together, "load_edge": deploy_edge},
    ),
    Case(
        "half edge and cloud",
        lambda root: pair(tiny(REPOSITORY), root, stop=2),
        {"resume": go_on, "join": put_together, "load_edge": deploy_edge},
    ),
    Case("sweep", whole_sweep, {"resume": sweep_on, "report": sweep_page}),
]
WEIGHTS = [6, 3, 3, 3, 1]


def damage(root: Path, rng: random.Random) -> str:
    """Flip a bit of a file, cut it or empty it; says what was done."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    kind = rng.choices(["flip", "cut", "empty"], [6, 3, 1])[0]
    if kind == "flip":
        bit = rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    elif kind == "cut":
        del data[rng.randrange(1, len(data)) if len(data) > 1 else 0 :]
    else:
        data.clear()
    path.unlink()  # hard links of other folders stay as they are
    path.write_bytes(bytes(data))
    return f"{kind} {path.relative_to(root)}"


def outcome(verb: Verb, root: Path, expected: Any) -> tuple[str, str]:
    """What a verb makes of a folder, and the words it used."""
    try:
        found = verb(root)
    except (PrivhierError, Refused) as error:
        return "refused", str(error)
    except BaseException:
        return "traceback", traceback.format_exc()
    same = json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
    return ("same", "") if same else ("different", f"{found}")


def copy(source: Path, target: Path) -> Path:
    """A folder, links and what lies beside it included."""
    shutil.copytree(source, target, symlinks=True)
    if (beside := source.with_name(f"{source.name}.yaml")).exists():
        shutil.copyfile(beside, target.with_name(f"{target.name}.yaml"))
    return target


def trial(work: Path, seed: int) -> list[tuple[str, str, str, str, str]]:
    """One damaged folder and every verb on it: (case, damage, verb, outcome, words)."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    case = rng.choices(CASES, WEIGHTS)[0]
    here = Path(tempfile.mkdtemp(dir=work))
    expected = json.loads((work / f"{case.name}.json").read_text())
    damaged = copy(work / case.name, here / "damaged")
    done = damage(damaged, rng)
    rows = []
    for name, verb in case.verbs.items():
        root = copy(damaged, here / name)
        rows.append((case.name, done, name, *outcome(verb, root, expected[name])))
    shutil.rmtree(here)
    return rows


def prepare(work: Path) -> None:
    """Make every folder, and what its verbs say of it undamaged."""
    for case in CASES:
        case.make(work / case.name)
        expected = {}
        for name, verb in case.verbs.items():
            root = copy(work / case.name, work / "undamaged")
            try:
                expected[name] = verb(root)
            except PrivhierError as error:  # e.g. there is nothing to report on yet
                expected[name] = f"refused: {error}"
            shutil.rmtree(root)
        (work / f"{case.name}.json").write_text(json.dumps(expected))


def main() -> int:
    """Run the campaign; 1 if anything was silently different or ended untyped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="corrupt-") as name:
        work = Path(name)
        prepare(work)
        seeds = [options.seed * 1_000_003 + number for number in range(options.trials)]
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            for number, rows in enumerate(pool.map(trial, [work] * len(seeds), seeds), start=1):
                if number % 25 == 0:
                    print(f"{number} of {options.trials} damaged folders", flush=True)
                for case, done, verb, found, words in rows:
                    counts[(verb, found)] += 1
                    if found in ("different", "traceback"):
                        bad += 1
                        print(f"{found}: {case}, {done}, then {verb}\n{words[-2000:]}", flush=True)
    for verb in dict.fromkeys(verb for verb, _ in counts):
        line = ", ".join(
            f"{found} {counts[(verb, found)]}" for found in ("same", "refused", "different", "traceback")
        )
        print(f"{verb}: {line}")
    total = Counter[str]()
    for (_, found), count in counts.items():
        total[found] += count
    print(
        f"{options.trials} damaged folders, {sum(total.values())} calls: {total['refused']} refused, "
        f"{total['same']} same, {total['different']} silent differences, {total['traceback']} tracebacks"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
