from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from privhier.datasets.matching import Matched, match_rows

NFC, NFD = "caf\u00e9.jpg", "cafe\u0301.jpg"


def kinds(matched: Matched) -> Counter[str]:
    return Counter(problem.reason.partition(":")[0] for problem in matched.problems)


@pytest.mark.parametrize(
    ("row", "picture", "way"),
    [
        ("./sub//a.jpg", "sub/a.jpg", None),
        ("x/../a.jpg", "a.jpg", None),
        (r"sub\a.jpg", "sub/a.jpg", None),
        (r".\sub\a.jpg", "sub/a.jpg", None),
        (r"a\b.jpg", r"a\b.jpg", None),  # a file may be called that here
        (NFC, NFD, "Unicode form"),
        (NFD, NFC, "Unicode form"),
        ("a.JPG", "a.jpg", "the suffix's case"),
        ("a.jpg", "a.Jpg", "the suffix's case"),
        ("a.jpg", "a.png", "the suffix"),
        ("a", "a.jpg", "the suffix"),
        ("v1.5_a", "v1.5_a.jpg", "the suffix"),
        (f"SUB\\{NFC}".replace("jpg", "JPG"), f"SUB/{NFD}", "the suffix's case"),
    ],
)
def test_the_same_under_another_spelling(row: str, picture: str, way: str | None) -> None:
    matched = match_rows([row], [picture], "labels.csv")
    assert (matched.rows, matched.paths) == ([0], [picture])
    if way is None:
        assert matched.problems == []
    else:
        assert [problem.where for problem in matched.problems] == ["labels.csv"]
        assert matched.problems[0].reason.startswith(
            f"matched under another spelling: 1 rows differ in {way}"
        )


@pytest.mark.parametrize(
    ("rows", "pictures", "says"),
    [
        (["A.jpg"], ["a.jpg"], "the case differs from a.jpg"),
        (["a.jpg"], ["sub/a.jpg"], "a file of that name lies at sub/a.jpg"),
        ([r"C:\faces\a.jpg"], ["a.jpg"], "a file of that name lies at a.jpg"),
        ([NFC], ["caf\udce9.jpg"], r"the file's name is not UTF-8: caf\xe9.jpg"),
        (["a.JPG"], ["a.jpg", "a.Jpg"], "the case differs from a.Jpg and 1 more"),
        (["a.jpg", "b.jpg"], ["a.jpg", "b.png"], "the suffix differs from b.png"),  # perhaps b's mask
    ],
)
def test_near_misses_are_named(rows: Sequence[str], pictures: Sequence[str], says: str) -> None:
    matched = match_rows(rows, pictures, "labels.csv")
    assert kinds(matched)["near miss"] == 1
    assert f"near miss: {says} (labels.csv)" in [problem.reason for problem in matched.problems]


def test_one_file_is_matched_once() -> None:
    matched = match_rows(["a.JPG", "a.jpg", "a.jpg", "A.PNG", "b.JPG", "b.jpG"], ["a.jpg", "b.jpg"], "l.csv")
    assert matched.rows == [1, 4]
    assert matched.paths == ["a.jpg", "b.jpg"]
    assert kinds(matched) == {
        "repeated label row": 3,
        "label row without image": 1,
        "matched under another spelling": 1,
    }


def test_counts_stand_in_the_note() -> None:
    rows = [f"{number}.jpg" for number in range(30)]
    matched = match_rows(rows, [f"{number}.png" for number in range(30)], "l.csv")
    assert matched.rows == list(range(30))
    assert [problem.reason for problem in matched.problems] == [
        "matched under another spelling: 30 rows differ in the suffix, as 0.jpg is 0.png"
    ]
