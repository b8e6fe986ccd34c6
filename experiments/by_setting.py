"""One row a setting, seeds together, from the results of runs: mean, smallest and largest.

    python experiments/by_setting.py runs/letters_gender runs/letters_age > experiments/letters/table.csv

Every ``result.json`` below the folders counts; what a run released, on which data and against which penalty
is read from it and from the configuration beside it, where there is one.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from yaml import safe_load

from privhier.evaluation.headline import headline, leading_metric
from privhier.evaluation.result import Result, Score
from privhier.privacy.guarantees import OWN_RELEASES

_DECIMALS = 4
Key = tuple[str, ...]


def main(folders: list[str]) -> None:
    """Print the table of all results below ``folders``."""
    found: dict[Key, list[dict[str, float]]] = defaultdict(list)
    for folder in folders:
        for path in sorted(Path(folder).rglob("result.json")):
            result = Result.read(path)
            for secret in result.leakage:
                found[_setting(result, path, secret)].append(_numbers(result, secret))
    names = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    keys = ["data", "train", "tasks", "secret", "network", "penalty", "release", "epsilon"]
    writer.writerow([*keys, "seeds", *(f"{name}{end}" for name in names for end in ("", "_least", "_most"))])
    for key, runs in sorted(found.items()):
        row: list[object] = [*key, len(runs)]
        for name in names:
            values = [run[name] for run in runs if name in run]
            whole = len(values) == len(runs)
            ends = (sum(values) / len(values), min(values), max(values)) if whole else ()
            row += [round(value, _DECIMALS) for value in ends] or ["", "", ""]
        writer.writerow(row)


def _setting(result: Result, path: Path, secret: str) -> Key:
    """Data, training records, tasks, secret, network, penalty, release and epsilon as text."""
    config, network = {}, result.release["network"]
    if (path.parent / "config.yaml").exists():
        config = safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
    own = next((row for row in result.guarantees if row.name == OWN_RELEASES), None)
    epsilon = "" if own is None or own.epsilon is None else f"{own.epsilon:.3g}"
    tasks = " + ".join(result.utility)
    defense = config.get("defense", {})
    options = ", ".join(f"{name}={value}" for name, value in sorted(defense.get("options", {}).items()))
    penalty = f"{defense.get('name', '')}({options})" if options else defense.get("name", "")
    train = str(result.dataset["splits"]["train"])
    # The number of training records hangs on the seed by a few: people are kept whole.
    train = f"{round(int(train), -2)}"
    cut = f"{network['backbone']} {network['cut']}"
    return (
        str(result.dataset["name"]), train, tasks, secret, cut, penalty, _release(result, config), epsilon
    )  # fmt: skip


def _release(result: Result, config: dict[str, dict[str, dict[str, str]]]) -> str:
    release = result.release
    mechanism = str(release["mechanism"]).replace("_", " ")
    if not release.get("letters"):
        noise = f", {mechanism}" if release.get("sigma") else ""
        return f"{release['values']} values{noise}"
    fit = config.get("model", {}).get("bottleneck", {}).get("fit", "")
    letters = f"{release['groups']} letter(s) of {release['letters']}{f' by {fit}' if fit else ''}"
    return letters if mechanism == "none" else f"{letters}, {mechanism}"


def _numbers(result: Result, secret: str) -> dict[str, float]:
    leakage, mean = result.leakage[secret], result.utility_mean
    found = {"task_auc": mean.auc.value, "task_balanced_accuracy": mean.balanced_accuracy.value}
    for task, utility in result.utility.items() if len(result.utility) > 1 else ():
        found[f"task_auc_{task}"] = utility.cloud.auc.value
    metric = leading_metric(leakage.worst)
    if metric is not None:
        for name, part in (("worst", leakage.worst), ("floor", leakage.floor), ("excess", leakage.excess)):
            score: Score | None = getattr(part, metric, None)
            if score is not None:
                found[f"{name}_on_test"] = score.value
        top = headline(leakage)
        if top is not None:
            found["headline"] = top.score.value
    if leakage.worst.verification_auc is not None:
        found["verification_auc_random_pairs"] = leakage.worst.verification_auc.value
    if leakage.certified is not None:
        for name in ("balanced_accuracy", "auc", "verification_auc"):
            bound = getattr(leakage.certified, name)
            if bound is not None:
                found[f"certified_{name}"] = bound
    if mean.cloud_gain is not None:
        found["cloud_gain"] = mean.cloud_gain.value
    found["bytes_a_record"] = result.uplink.bytes_per_record
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
