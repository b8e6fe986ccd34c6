from __future__ import annotations

import numpy as np
import pytest

from privhier.datasets.cells import read_labels, spreadsheet_date


@pytest.mark.parametrize(
    "cell",
    [
        *("", "nan", "NaN", "NAN", "-nan", "NA", "na", "N/A", "n/a", "<NA>", "#N/A", "null", "NULL", "Null"),
        *(
            "None",
            "none",
            "nil",
            "?",
            "??",
            "-",
            "--",
            "\u2013",
            "\u2014",
            ".",
            "...",
            r"\N",
            "(null)",
            "#REF!",
        ),
    ],
)
def test_empty_like_cells_are_no_class(cell: str) -> None:
    numbers = read_labels("x", ["1", cell, "0"])
    assert numbers.lacking == {1: "missing label: x"}
    assert numbers.values.dtype == np.int64
    assert numbers.values[[0, 2]].tolist() == [1, 0]
    text = read_labels("x", ["hat", cell, "cap"])
    assert text.lacking == {1: "missing label: x"}
    assert np.unique(text.values[[0, 2]]).tolist() == ["cap", "hat"]


def test_what_is_missing_can_be_said() -> None:
    labels = read_labels("country", ["NA", "DE", "unknown", ""], nothing=frozenset({"unknown"}))
    assert labels.lacking == {2: "missing label: country", 3: "missing label: country"}
    assert labels.values[:2].tolist() == ["NA", "DE"]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("1_000", "digits and a decimal point"),
        ("1,5", "digits and a decimal point"),
        ("1,000,000", "digits and a decimal point"),
        ("1 000", "digits and a decimal point"),
        ("1'000.5", "digits and a decimal point"),
        ("\u0663\u0660", "the digits 0 to 9"),  # Arabic 30
        ("\uff13\uff10", "the digits 0 to 9"),  # full-width 30
        ("\u0969", "the digits 0 to 9"),  # Devanagari 3
        ("\u221230", "the digits 0 to 9"),  # a minus sign that is no hyphen
        ("\u00b2", "the digits 0 to 9"),
        ("inf", "not a finite number"),
        ("-Infinity", "not a finite number"),
        ("1e999", "64-bit"),
        ("9223372036854775808", "64 bits"),
        ("9" * 5000, "64 bits"),
    ],
)
def test_what_only_looks_like_a_number_is_refused(cell: str, why: str) -> None:
    labels = read_labels("age", ["25", cell, "30"])
    assert list(labels.lacking) == [1]
    assert labels.lacking[1].startswith("unreadable label: age is ")
    assert why in labels.lacking[1]
    assert len(labels.lacking[1]) < 150
    assert labels.values.dtype == np.int64
    assert labels.values[[0, 2]].tolist() == [25, 30]
    assert list(read_labels("age", [cell, cell]).lacking) == [0, 1]  # nor does a whole column of them pass


def test_types_of_columns() -> None:
    assert read_labels("x", ["-1", "+2", "007"]).values.tolist() == [-1, 2, 7]
    assert read_labels("x", ["1", ".5", "-2.5e1"]).values.tolist() == [1.0, 0.5, -25.0]
    mixed = read_labels("x", ["7b", "8"])
    assert mixed.values.tolist() == ["7b", "8"]
    assert mixed.notes == ("mixed column: 'x' has numbers (1) beside text like '7b': all read as text",)
    assert read_labels("x", []).values.tolist() == []


def test_true_and_false_are_one_pair() -> None:
    labels = read_labels("hat", ["True", "FALSE", "TRUE", "false", "true", "NA"])
    assert labels.values.tolist()[:5] == ["True", "False", "True", "False", "True"]
    assert labels.notes == ()


def test_true_and_false_beside_1_and_0() -> None:
    labels = read_labels("hat", ["True", "0", "1", "FALSE"])
    assert labels.values.tolist() == ["True", "False", "True", "False"]
    assert labels.notes == ("mixed column: 'hat' writes true and false as 1 and 0 too: read as one pair",)
    assert read_labels("hat", ["True", "2"]).values.tolist() == ["True", "2"]


def test_values_that_differ_by_case_are_one_and_named() -> None:
    labels = read_labels("sex", ["male", "Male", "female", "male", "East  Asian", "East\u00a0Asian"])
    assert labels.notes == ("values alike: 'sex' has 'male' (2), 'Male' (1): read as one, 'male'",)
    assert labels.values.tolist() == ["male", "male", "female", "male", "East Asian", "East Asian"]
    pairs = read_labels("hat", ["Yes", "NO", "yes", "no"])
    assert np.unique(pairs.values).tolist() == ["NO", "Yes"]


def test_text_among_numbers_is_no_class() -> None:
    labels = read_labels("age", [*map(str, range(30)), "thirty", "1_0"])
    assert labels.values.dtype == np.int64
    assert labels.lacking[30] == (
        "unreadable label: age is 'thirty': not a number, as nearly all of its column are"
    )
    assert list(labels.lacking) == [30, 31]


@pytest.mark.parametrize(
    ("cell", "was"),
    [
        ("9-Mar", "3-9"),
        ("19-Oct", "10-19"),
        ("Oct-19", "10-19"),
        ("Mar-09", "3-9"),
        ("9. March", "3-9"),
        ("2026-03-09", "a range"),
        ("3/9/2026", "a range"),
        ("3-9", None),
        ("more than 70", None),
        ("9-Cat", None),
    ],
)
def test_spreadsheet_dates(cell: str, was: str | None) -> None:
    assert spreadsheet_date(cell) == was


def test_a_date_among_ranges_is_refused() -> None:
    labels = read_labels("age", ["20-29", "9-Mar", "3-9"])
    assert labels.lacking == {1: "unreadable label: age is '9-Mar': a spreadsheet made a date of 3-9"}
    assert read_labels("born", ["9-Mar", "1-Apr"]).lacking == {}  # dates among themselves are dates
