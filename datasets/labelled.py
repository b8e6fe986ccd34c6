"""Records without a label: dropped where the run needs the label, kept where it does not; never a class."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from privhier.datasets.base import Problem
from privhier.datasets.listing import Listing


def keep_labelled(listing: Listing, used: Collection[str]) -> Listing:
    """The records that have a label in every column of ``used``.

    The others become problems. A column that the run does not use costs no record; if it has gaps it is set
    aside as unavailable, so that no stand-in is ever taken for a label.
    """
    problems = list(listing.problems)
    reasons: dict[int, list[str]] = {}
    for name in listing.attributes:
        if name in used:
            for row, why in listing.lacking.get(name, {}).items():
                reasons.setdefault(row, []).append(why)
            problems += [Problem(name, note) for note in listing.notes.get(name, ())]
    problems += [Problem(listing.paths[row], _joined(reasons[row])) for row in sorted(reasons)]
    gaps = {name: len(rows) for name, rows in listing.lacking.items() if rows and name not in used}
    unavailable = dict(listing.unavailable)
    for name, count in gaps.items():
        unavailable[name] = f"{count} of {len(listing)} records lack it, and this run did not name it"
    whole = {name: column for name, column in listing.attributes.items() if name not in gaps}
    listing = replace(
        listing, attributes=whole, problems=tuple(problems), lacking={}, notes={}, unavailable=unavailable
    )
    if not reasons:
        return listing
    kept = np.array([row for row in range(len(listing)) if row not in reasons], dtype=np.int64)
    chosen = listing.select(kept)
    # Text as wide as the labels that are left: the same column as if the rows had never been there.
    columns = {
        name: np.array(column.tolist(), dtype=str) if column.dtype.kind == "U" else column
        for name, column in chosen.attributes.items()
    }
    return replace(chosen, attributes=columns)


def _joined(reasons: list[str]) -> str:
    missing = [why.removeprefix("missing label: ") for why in reasons if why.startswith("missing label: ")]
    others = [why for why in reasons if not why.startswith("missing label: ")]
    return "; ".join([*([f"missing label: {', '.join(missing)}"] if missing else []), *others])
