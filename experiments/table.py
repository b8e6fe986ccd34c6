"""One row a setting, seeds averaged, from a sweep's points.csv: the small table a study keeps.

    python experiments/table.py runs/first_front/points.csv model.bottleneck.size release.sigma family

Intervals are the widest that any seed's run reported; the sweep's page pools them properly.
"""

from __future__ import annotations

import sys

import pandas as pd

_LEAKAGE = (
    "auc",
    "training/auc",
    "headline/score",
    "headline/floor",
    "headline/excess",
    "ceiling/balanced_accuracy",
)
_SCORES = ("/auc", "/score", "/excess")


def main(path: str, keys: list[str]) -> None:
    """Print the table of ``path``, one row for each value of ``keys``."""
    points = pd.read_csv(path)
    found = {"utility/auc": "task_auc", "utility/balanced_accuracy": "task_balanced_accuracy"}
    for column in points.columns:
        kind, _, rest = column.partition("/")
        attribute, _, what = rest.partition("/")
        if kind == "leakage" and what in _LEAKAGE:
            found[column] = f"{attribute}_{what.replace('/', '_')}"
        if kind == "epsilon":
            found[column] = f"epsilon: {rest}"
    table = points.groupby(keys, dropna=False)[list(found)].mean().rename(columns=found)
    for end, pick in (("low", "min"), ("high", "max")):
        for column in [name for name in found if name.endswith(_SCORES) and f"{name}_{end}" in points]:
            table[f"{found[column]}_{end}"] = points.groupby(keys, dropna=False)[f"{column}_{end}"].agg(pick)
    table["seeds"] = points.groupby(keys, dropna=False).size()
    table.round(4).reset_index().to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
