"""Attribute expressions of the configuration, read by a small parser of their own (never ``eval``).

================================  =========================================================
``Male``                          the distinct values of a column, sorted, are the classes
``race==0``, ``age>30``           ``== != < <= > >=`` with a number, or a value's name or text
``gender==female``                (quotes optional: ``race=="East Asian"``)
``bin(age, 20, 40, 60)``          below 20, 20 to below 40, 40 to below 60, 60 and above
``identity``                      one class a person
================================  =========================================================
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from privhier.datasets.base import AttributeLabels, FaceDataset
from privhier.errors import DataError
from privhier.registry import nearest

MOST_CLASSES = 50
"""A bare column with more distinct values than this is a measurement or a name, not a class."""

COMPARISON = re.compile(r"(?P<column>.+?)\s*(?P<sign>==|!=|<=|>=|<|>)\s*(?P<value>.+)")
BINS = re.compile(r"bin\((?P<column>[^,]+),(?P<edges>.+)\)")

Column = npt.NDArray[Any]
SIGNS: dict[str, tuple[Callable[[Column, Any], Column], str]] = {
    "==": (operator.eq, "!="),
    "!=": (operator.ne, "=="),
    "<": (operator.lt, ">="),
    "<=": (operator.le, ">"),
    ">": (operator.gt, "<="),
    ">=": (operator.ge, "<"),
}
"""Each sign's function, and the sign of its negation."""


def evaluate_attribute(
    expression: str, dataset: FaceDataset, *, key: str = "dataset.task or dataset.sensitive"
) -> AttributeLabels:
    """The classes of ``expression`` for every record of ``dataset``.

    Comparisons give class 0 where false and 1 where true.

    Args:
        expression: One of the forms in the module's table.
        dataset: Its columns, identities and value names are used.
        key: The configuration key that holds the expression, for error messages.

    Raises:
        DataError: Not an expression; no such column; a comparison the column's type has not; a class that
            no record has; fewer than two classes; more than ``MOST_CLASSES`` in a bare column.
    """
    text = expression.strip()
    name = column_of(text, dataset.attributes)

    def refuse(rule: str, remedy: str) -> NoReturn:
        raise DataError(key=key, value=expression, rule=rule, remedy=remedy)

    if name in dataset.unavailable and not (name == "identity" and dataset.identity is not None):
        refuse(
            f"{dataset.name} has no {name!r} here: {dataset.unavailable[name]}",
            f"Add what is missing, or choose from {', '.join(dataset.attributes) or 'none'}",
        )
    if text in dataset.attributes:
        values, classes = _distinct(text, dataset, refuse)
    elif text == "identity":
        if dataset.identity is None:
            refuse(f"{dataset.name} names no people", f"Choose from {', '.join(dataset.attributes)}")
        people, values = np.unique(dataset.identity, return_inverse=True)
        classes = [f"person {number}" for number in people.tolist()]
    elif match := BINS.fullmatch(text):
        values, classes = _binned(match["column"].strip(), match["edges"].split(","), dataset, refuse)
    elif match := COMPARISON.fullmatch(text):
        values, classes = _compared(match["column"], match["sign"], match["value"].strip(), dataset, refuse)
    else:
        values, classes = _distinct(text, dataset, refuse)  # not a column: refused with the nearest names
    counts = np.bincount(values, minlength=len(classes))
    if len(classes) < 2 or np.count_nonzero(counts) < 2:
        only = classes[int(counts.argmax())] if classes else "none"
        refuse(
            f"has one class only in these {len(dataset)} records: {only}",
            "Choose an attribute that varies, or keep more records (dataset.limit)",
        )
    if not counts.all():
        empty = classes[int(counts.argmin())]
        refuse(
            f"no record is in the class {empty!r}", "Choose other edges, or keep more records (dataset.limit)"
        )
    return AttributeLabels(expression, values.astype(np.int64), tuple(classes))


def column_of(expression: str, columns: Collection[str]) -> str:
    """The column that an expression reads (``"identity"`` for people), whether or not there is such a one."""
    text = expression.strip()
    if text in columns:
        return text
    match = BINS.fullmatch(text) or COMPARISON.fullmatch(text)
    return match["column"].strip() if match else text


Refuse = Callable[[str, str], NoReturn]
Classes = tuple[npt.NDArray[np.int64], list[str]]


def _column(name: str, dataset: FaceDataset, refuse: Refuse) -> Column:
    if name in dataset.attributes:
        return np.asarray(dataset.attributes[name])
    known = [*dataset.attributes, *(["identity"] if dataset.identity is not None else [])]
    there = f"Columns: {', '.join(known) or 'none'}; forms: Male, race==0, bin(age, 20, 40), identity"
    refuse(f"{dataset.name} has no column {name!r}", nearest(name, known, otherwise=there))


def _distinct(name: str, dataset: FaceDataset, refuse: Refuse) -> Classes:
    found, values = np.unique(_column(name, dataset, refuse), return_inverse=True)
    if len(found) > MOST_CLASSES:
        refuse(
            f"has {len(found)} distinct values, more than the {MOST_CLASSES} classes of a bare column",
            f"Cut it into classes, for instance bin({name}, ...) or {name}>...",
        )
    known = dataset.value_names.get(name, {})
    if not known and found.tolist() == [0, 1]:
        return values, [f"not {name}", name]
    return values, [known.get(value, str(value)) for value in found.tolist()]


def _binned(name: str, cells: Sequence[str], dataset: FaceDataset, refuse: Refuse) -> Classes:
    column = _column(name, dataset, refuse)
    edges = [_number(cell) for cell in cells]
    if column.dtype.kind not in "iufb":
        refuse(
            f"column {name!r} holds text, which has no bins", f"Compare it, for instance {name}=={column[0]}"
        )
    numbers = [edge for edge in edges if edge is not None]
    if len(numbers) < len(edges) or any(b <= a for a, b in pairwise(numbers)):
        refuse("the edges of bin() must be increasing numbers", f"For instance bin({name}, 20, 40, 60)")
    shown = [f"{edge:g}" for edge in numbers]
    middle = [f"{low} <= {name} < {high}" for low, high in pairwise(shown)]
    classes = [f"{name} < {shown[0]}", *middle, f"{name} >= {shown[-1]}"]
    return np.digitize(column, numbers).astype(np.int64), classes


def _compared(name: str, sign: str, text: str, dataset: FaceDataset, refuse: Refuse) -> Classes:
    column = _column(name, dataset, refuse)
    compare, negated = SIGNS[sign]
    plain = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    operand: float | str | None = plain
    if column.dtype.kind in "iufb":
        codes = {label.lower(): code for code, label in dataset.value_names.get(name, {}).items()}
        operand = codes.get(plain.lower(), _number(plain))
        if operand is None:
            names = f" or one of {', '.join(codes)}" if codes else ""
            refuse(
                f"{plain!r} must be a number{names}: column {name!r} holds numbers",
                f"For instance {name}{sign}0",
            )
    elif sign not in ("==", "!="):
        refuse(f"column {name!r} holds text, which has no order", f"Use {name}== or {name}!=")
    elif plain not in column:
        seen = [str(value) for value in np.unique(column).tolist()]
        alike = [value for value in seen if value.casefold() == plain.casefold()]
        if len(alike) != 1:
            refuse(f"no record has {name} {plain!r}", f"Values: {', '.join(seen[:MOST_CLASSES])}")
        operand = plain = alike[0]
    # The value's human name, where the data set has one: dicts find 1 under 1.0 too.
    label = {**dataset.value_names.get(name, {})}.get(operand, plain)  # type: ignore[call-overload]
    values = np.asarray(compare(column, operand)).astype(np.int64)
    return values, [f"{name} {negated} {label}", f"{name} {sign} {label}"]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
