from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.base import FaceDataset
from privhier.errors import DataError


@pytest.fixture
def faces(make_faces: Callable[..., FaceDataset]) -> FaceDataset:
    return make_faces(
        {
            "Male": [0, 1, 1, 0, 1, 0],
            "race": [0, 1, 4, 0, 2, 2],
            "age": [19, 20, 39, 40, 60, 5],
            "score": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5],
            "group": ["East Asian", "White", "White", "Black", "Black", "White"],
            "5_o_Clock_Shadow": [1, 1, 0, 0, 0, 0],
            "same": [3, 3, 3, 3, 3, 3],
        },
        identity=[9, 9, 4, 4, 7, 7],
        value_names={"race": {0: "White", 1: "Black", 2: "Asian", 3: "Indian", 4: "Others"}},
    )


@pytest.mark.parametrize(
    ("expression", "values", "classes"),
    [
        ("Male", [0, 1, 1, 0, 1, 0], ("not Male", "Male")),
        ("5_o_Clock_Shadow==1", [1, 1, 0, 0, 0, 0], ("5_o_Clock_Shadow != 1", "5_o_Clock_Shadow == 1")),
        ("race==0", [1, 0, 0, 1, 0, 0], ("race != White", "race == White")),
        ("race == white", [1, 0, 0, 1, 0, 0], ("race != White", "race == White")),
        ("race!=0", [0, 1, 1, 0, 1, 1], ("race == White", "race != White")),
        ("race", [0, 1, 3, 0, 2, 2], ("White", "Black", "Asian", "Others")),
        ("age>39", [0, 0, 0, 1, 1, 0], ("age <= 39", "age > 39")),
        ("age>=39", [0, 0, 1, 1, 1, 0], ("age < 39", "age >= 39")),
        ("age<20", [1, 0, 0, 0, 0, 1], ("age >= 20", "age < 20")),
        ("age<=20", [1, 1, 0, 0, 0, 1], ("age > 20", "age <= 20")),
        ("score>2.5", [0, 0, 0, 1, 1, 1], ("score <= 2.5", "score > 2.5")),
        (
            "bin(age, 20, 40, 60)",
            [0, 1, 1, 2, 3, 0],
            ("age < 20", "20 <= age < 40", "40 <= age < 60", "age >= 60"),
        ),
        ("group==East Asian", [1, 0, 0, 0, 0, 0], ("group != East Asian", "group == East Asian")),
        ("group==east asian", [1, 0, 0, 0, 0, 0], ("group != East Asian", "group == East Asian")),
        ("group=='Black'", [0, 0, 0, 1, 1, 0], ("group != Black", "group == Black")),
        ('group!="White"', [1, 0, 0, 1, 1, 0], ("group == White", "group != White")),
        ("group", [1, 2, 2, 0, 0, 2], ("Black", "East Asian", "White")),
        ("identity", [2, 2, 0, 0, 1, 1], ("person 4", "person 7", "person 9")),
    ],
)
def test_expression(faces: FaceDataset, expression: str, values: list[int], classes: tuple[str, ...]) -> None:
    labels = evaluate_attribute(expression, faces)

    assert labels.name == expression
    assert labels.values.tolist() == values
    assert labels.values.dtype == np.int64
    assert labels.classes == classes


@pytest.mark.parametrize(
    ("expression", "rule", "remedy"),
    [
        ("male", "has no column 'male'", "Did you mean Male"),
        ("Mael==1", "has no column 'Mael'", "Did you mean Male"),
        ("same", "has one class only", "varies"),
        ("race==3", "has one class only", "varies"),
        ("age>100", "has one class only", "varies"),
        ("bin(age, 20, 40, 90)", "no record is in the class 'age >= 90'", "edges"),
        ("bin(age, 40, 20)", "increasing", "bin(age"),
        ("bin(age, old)", "increasing", "bin(age"),
        ("bin(group, 3)", "holds text", "group=="),
        ("group>White", "has no order", "group=="),
        ("group==Purple", "no record has group 'Purple'", "East Asian"),
        ("race==Martian", "must be a number or one of white", "race==0"),
        ("__import__('os').system('true')", "has no column", "forms"),
    ],
)
def test_refusals_name_rule_and_remedy(faces: FaceDataset, expression: str, rule: str, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        evaluate_attribute(expression, faces, key="dataset.task")
    assert caught.value.key == "dataset.task"
    assert caught.value.value == expression
    assert rule in caught.value.rule
    assert remedy in caught.value.remedy


def test_a_measurement_is_no_class(make_faces: Callable[..., FaceDataset]) -> None:
    faces = make_faces({"height": [number / 7 for number in range(51)], "age": list(range(51))})
    for column in ("height", "age"):
        with pytest.raises(DataError, match=rf"bin\({column}"):
            evaluate_attribute(column, faces)


def test_identity_needs_people(make_faces: Callable[..., FaceDataset]) -> None:
    with pytest.raises(DataError, match="names no people"):
        evaluate_attribute("identity", make_faces({"a": [0, 1]}))
