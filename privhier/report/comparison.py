"""Several results side by side, as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from privhier.config import RunConfig
from privhier.evaluation.flat import flatten, result_metrics, with_interval
from privhier.evaluation.headline import ceiling_value, certified_value, headline
from privhier.evaluation.result import Result
from privhier.evaluation.warnings import unquotable
from privhier.privacy.guarantees import OWN_RELEASES
from privhier.privacy.shown import TWO_PROMISES, mixed_promises

if TYPE_CHECKING:
    import pandas as pd

_SILENT = ("name", "report", "tracking", "link", "runtime", "dataset.root", "dataset.cache")
"""Keys of a configuration in which runs may differ without being another experiment."""


def comparison(
    runs: Sequence[tuple[RunConfig, Result]], labels: Sequence[str], *, every: bool = False
) -> pd.DataFrame:
    """One row a run: where their configurations differ, utility, leakage and epsilon.

    Args:
        runs: Configurations and results.
        labels: What each is called; the index.
        every: Add every metric of the results, under the names MLflow has them.

    Returns:
        Columns ``KEY.PATH`` of the configuration keys in which they differ; ``additions``, where attacks were
        added to one of them once it was finished: not all met the same attackers; ``warning``, where one of
        them must not be quoted (not learned, a collapsed code); ``utility_mean/auc``;
        ``leakage/ATTRIBUTE`` (the headline: worst of test and training records and of all threat models) with
        the score's name, attacker, records, floor, excess, ceiling and certificate; ``epsilon`` and ``delta``
        of one record's own releases (NaN: none), and ``allows``, the best balanced accuracy at telling two
        records apart; ``releases_per_record``, ``bytes_per_record`` of one release on the line and
        ``payload_bytes_per_record`` of what is released in it. A score's interval is in ``_low`` and
        ``_high``. Where pure epsilons stand beside others, ``attrs["note"]`` says what that means.
    """
    import pandas as pd

    flat = [_settings(config) for config, _ in runs]
    keys = sorted({key for settings in flat for key in settings})
    differing = [key for key in keys if len({settings.get(key) for settings in flat}) > 1]
    rows = []
    for settings, (_, result) in zip(flat, runs, strict=True):
        row: dict[str, Any] = {key: _number(settings.get(key)) for key in differing}
        if any(one.additions for _, one in runs):
            row["additions"] = "; ".join(one.described for one in result.additions)
        if any(unquotable(one.warnings) for _, one in runs):
            row["warning"] = "; ".join(unquotable(result.warnings))
        rows.append(row | _headline(result) | (dict(result_metrics(result)) if every else {}))
    table = pd.DataFrame(rows, index=pd.Index(labels, name="run"))
    if mixed_promises(row["delta"] for row in rows if row["epsilon"] > 0):
        table.attrs["note"] = TWO_PROMISES
    return table


_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def _settings(config: RunConfig) -> dict[str, str]:
    flat = flatten(config.to_publish())
    return {
        key: text
        for key, text in flat.items()
        if not any(key == silent or key.startswith(f"{silent}.") for silent in _SILENT)
    }


def _number(text: str | None) -> object:
    """A setting as a number where it is one, so that columns can be sorted and plotted."""
    if text is None or not _NUMBER.fullmatch(text):
        return text
    return float(text)


def _headline(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = with_interval("utility_mean/auc", result.utility_mean.auc)
    for name, leakage in result.leakage.items():
        top = headline(leakage)
        if top is None:
            continue
        row |= with_interval(f"leakage/{name}", top.score)
        row[f"leakage/{name}/score"] = top.metric
        row[f"leakage/{name}/attack"] = top.attack
        row[f"leakage/{name}/records"] = top.records
        for beside, score in (("floor", top.floor), ("excess", top.excess)):
            known = {"": math.nan, "_low": math.nan, "_high": math.nan}
            row |= {f"leakage/{name}/{beside}{end}": value for end, value in known.items()}
            row |= {} if score is None else with_interval(f"leakage/{name}/{beside}", score)
        limit = ceiling_value(leakage, top.metric)
        row[f"leakage/{name}/ceiling"] = math.nan if limit is None else limit
        bound = certified_value(leakage, top.metric)
        row[f"leakage/{name}/certified"] = math.nan if bound is None else bound
    own = next((row for row in result.guarantees if row.name == OWN_RELEASES), None)
    for name in ("epsilon", "delta", "allows"):
        value = None if own is None else getattr(own, name)
        row[name] = math.nan if value is None else value
    row["releases_per_record"] = result.uplink.releases_per_record
    row["bytes_per_record"] = result.uplink.bytes_per_record
    alone = result.uplink.payload_bytes_per_record
    row["payload_bytes_per_record"] = math.nan if alone is None else alone
    return row
