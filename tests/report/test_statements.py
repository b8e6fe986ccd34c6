"""A person's rows are one group; what they say apart is still all there."""

from __future__ import annotations

import pytest

from privhier.evaluation.result import GuaranteeRow, Result
from privhier.report.page import render
from privhier.report.statements import by_words, common_limits, statements


def row(name: str, epsilon: float | None, k: int = 2, **more: object) -> GuaranteeRow:
    facts = {
        "name": name,
        "adversary": "sees only the releases of that person's records",
        "adjacency": f"replace all {k} records of one person by any others, the most that anyone has",
        "unit": "person",
        "epsilon": epsilon,
        "delta": 0.0,
        "covers": [f"all 1 releases of each of the person's {k} records together"],
        "does_not_cover": ["common", "records of the same person in other splits"],
        "note": "a simulation",
    }
    return GuaranteeRow.model_validate(facts | more)


@pytest.fixture
def rows() -> list[GuaranteeRow]:
    own = row(
        "own releases of one record", 8.0, unit="record", does_not_cover=["common"], adjacency="replace one"
    )
    return [
        own,
        row("own releases of one person, aux records", 16.0),
        row("own releases of one person, test records", 16.0),
        row("own releases of one person, train records", 24.0, 3, does_not_cover=["common", "their labels"]),
        row("training records of one person against the curious cloud", None),
    ]


def test_a_person_s_splits_are_one_group(rows):
    names = [statement.name for statement in statements(rows)]
    assert names == [rows[0].name, "own releases of one person", rows[4].name]
    group = statements(rows)[1]
    assert [label for label, _ in group.numbers] == ["aux, test, k = 2", "train, k = 3"]
    assert [row.epsilon for _, row in group.numbers] == [16.0, 24.0]
    assert [len(statement.parts) for statement in statements(rows)] == [1, 3, 1]
    assert group.adjacency.startswith("replace all k records of one person")
    assert group.notes == ["a simulation"]


def test_what_holds_for_one_split_only_says_whose_it_is(rows):
    parts = statements(rows)[1].parts
    assert common_limits(rows) == ["common"]
    limits = {words: whose for whose, words in by_words(parts, "limits")}
    assert limits["their labels"] == rows[3].name
    assert limits["records of the same person in other splits"] == f"{rows[1].name}, {rows[2].name}"
    covers = {words: whose for whose, words in by_words(parts, "covers")}
    assert covers[rows[3].covers[0]] == rows[3].name
    assert by_words(parts[:2], "covers") == [("", rows[1].covers[0])]


def test_other_adversaries_and_rows_apart_stay_apart(rows):
    other = row(rows[2].name, 16.0, adversary="sees everything")
    assert len(statements([rows[1], other])) == 2
    assert len(statements([rows[1], rows[0], rows[2]])) == 3
    assert statements([]) == []


def test_the_page_shows_every_number_of_the_group(rows, result, config):
    told = result.model_copy(update={"guarantees": rows})
    page = render(told, config, drawings={}, reconstructions=[], command="c")
    table = page.split('id="guarantee-table"')[1].split("</table>")[0]
    assert table.count('<tbody class="statement">') == 3
    assert table.count('<span class="eps">16.00</span>') == 1
    assert "aux, test, k = 2" in table
    assert "train, k = 3" in table
    assert "their labels" in table


def test_a_ceiling_of_one_is_not_told(result: Result, config):
    name, leakage = next(iter(result.leakage.items()))
    for value, told in ((0.9996, False), (0.873, True)):
        ceiling = leakage.ceiling.model_copy(update={"auc": value, "balanced_accuracy": value})
        utility = {task: one.model_copy(update={"ceiling": ceiling}) for task, one in result.utility.items()}
        changed = result.model_copy(
            update={
                "leakage": {name: leakage.model_copy(update={"ceiling": ceiling})},
                "references": {},
                "utility": utility,
            }
        )
        page = render(changed, config, drawings={}, reconstructions=[], command="c")
        assert ("<dt>ceiling</dt>" in page) is told
        assert ("can pass balanced accuracy" in page) is told
        assert ("No ceiling below 1 is proven here." in page) is not told
        assert "1.000" not in page.split("</style>")[1].split('id="reading"')[0]
