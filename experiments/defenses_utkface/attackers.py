"""Who breaks whom, from runs: a row a defense, a column an attacker, AUC on test records.

    python experiments/defenses_utkface/attackers.py runs/defenses_* > attackers.csv

Every ``result.json`` below the folders counts; seeds of one setting are averaged.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from yaml import safe_load

from privhier.evaluation.result import Result

Key = tuple[str, str, str, str]


def main(folders: list[str]) -> None:
    """Print the matrix of all results below ``folders``."""
    found: dict[Key, list[dict[str, float]]] = defaultdict(list)
    for folder in folders:
        for path in sorted(Path(folder).rglob("result.json")):
            result = Result.read(path)
            config = safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
            for secret, leakage in result.leakage.items():
                scores = {
                    f"{row.attack.split('@')[0]} ({row.threat_model})": row.auc.value
                    for row in leakage.attacks
                    if row.auc is not None
                }
                floor = leakage.floor.auc if leakage.floor is not None else None
                scores["floor"] = float("nan") if floor is None else floor.value
                scores["task"] = result.utility_mean.auc.value
                tasks, bottleneck = " + ".join(result.utility), config["model"]["bottleneck"]["kind"]
                found[tasks, secret, bottleneck, _defense(config)].append(scores)
    names = sorted({name for rows in found.values() for row in rows for name in row} - {"task", "floor"})
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["tasks", "secret", "release", "defense", "seeds", "task", "floor", *names])
    for key, rows in sorted(found.items()):
        cells = [_mean(name, rows) for name in ("task", "floor", *names)]
        writer.writerow([*key, len(rows), *cells])


def _defense(config: dict[str, dict[str, object]]) -> str:
    options = config["defense"].get("options")
    shown = (
        [f"{name}={value}" for name, value in sorted(options.items())] if isinstance(options, dict) else []
    )
    return f"{config['defense']['name']}({', '.join(shown)})" if shown else str(config["defense"]["name"])


def _mean(name: str, rows: list[dict[str, float]]) -> object:
    """The mean over seeds; empty where not every run has it."""
    values = [row[name] for row in rows if name in row]
    return round(sum(values) / len(values), 3) if len(values) == len(rows) else ""


if __name__ == "__main__":
    main(sys.argv[1:])
