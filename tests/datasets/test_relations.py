from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from privhier.assessment.claims import run_warnings
from privhier.config import load_config
from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.base import FaceDataset
from privhier.datasets.relations import determines, refuse_same_attributes, told_together
from privhier.errors import DataError
from privhier.training.prepare import build_mechanism, prepare

AGE = [10, 25, 30, 45, 50, 70, 15, 41]
COLUMNS: dict[str, list[object]] = {
    "smiling": [1, 0, 1, 0, 1, 0, 0, 1],
    "smile": ["yes", "no", "yes", "no", "yes", "no", "no", "yes"],
    "race": [0, 1, 2, 0, 1, 2, 0, 1],
    "code": [5, 3, 4, 5, 3, 4, 5, 3],
    "age": list(AGE),
    "hat": [0, 0, 1, 1, 0, 0, 1, 1],
    "both": [0, 1, 1, 0, 0, 1, 0, 1],  # whether smiling and hat are equal
}


@pytest.fixture
def faces(make_faces: Callable[..., FaceDataset]) -> FaceDataset:
    return make_faces(COLUMNS, identity=[1, 2, 3, 4, 1, 2, 6, 7])


def check(faces: FaceDataset, task: Sequence[str], sensitive: Sequence[str]) -> list[str]:
    labels = {name: evaluate_attribute(name, faces) for name in (*task, *sensitive)}
    refuse_same_attributes(labels, task, sensitive)
    return told_together(labels, task, sensitive)


@pytest.mark.parametrize(
    ("task", "sensitive", "how"),
    [
        ("smiling", "smiling==1", "their labels are equal"),
        ("smiling", "smiling==0", "one is the complement of the other"),
        ("smiling", "smiling!=1", "one is the complement of the other"),
        ("smiling", "smile", "their labels are equal"),
        ("smile==no", "smiling>0.5", "one is the complement of the other"),
        ("race", "code", "the same classes in another order"),
        ("age>30", "bin(age, 31)", "their labels are equal"),
        ("race", "race==0", "each class of race has one class of race==0"),
        ("bin(age, 20, 40, 60)", "age>=40", "has one class of age>=40"),
    ],
)
def test_a_task_that_tells_the_secret(faces: FaceDataset, task: str, sensitive: str, how: str) -> None:
    with pytest.raises(DataError) as caught:
        check(faces, ["hat", task], ["both", sensitive])
    assert caught.value.key == "dataset.task and dataset.sensitive"
    assert caught.value.value == f"{task}, {sensitive}"
    assert how in caught.value.rule
    assert "on all 8 records" in caught.value.rule


@pytest.mark.parametrize("key", ["task", "sensitive"])
def test_one_attribute_under_two_names(faces: FaceDataset, key: str) -> None:
    twice, other = ["smiling", "smile==no"], ["race"]
    with pytest.raises(DataError, match="smiling, smile==no") as caught:
        check(faces, twice, other) if key == "task" else check(faces, other, twice)
    assert caught.value.key == f"dataset.{key}"
    assert caught.value.remedy == "Remove one of the two"


def test_what_may_be_studied(faces: FaceDataset) -> None:
    assert check(faces, ["smiling"], ["race", "hat", "identity"]) == []
    assert check(faces, ["race==0"], ["race", "code==3"]) == []  # a secret may tell the task
    assert check(faces, ["age>30", "bin(age, 20, 40, 60)"], ["smiling"]) == []


def test_tasks_that_tell_a_secret_together_are_named(faces: FaceDataset) -> None:
    assert check(faces, ["smiling", "hat"], ["race", "both"]) == ["both"]


def test_determines_is_exact() -> None:
    known = np.repeat(np.arange(3), 1000)
    other = (known == 1).astype(np.int64)
    assert determines(known, other)
    assert not determines(other, known)
    other[5] = 1
    assert not determines(known, other)


def test_a_run_warns_of_tasks_that_tell_a_secret_together(
    make_faces: Callable[..., FaceDataset], repository: Path
) -> None:
    faces = make_faces({name: values * 10 for name, values in COLUMNS.items()})
    for sensitive, told in (("both", True), ("race", False)):
        config = load_config(
            repository / "configs/debug.yaml",
            ["dataset.task=[smiling,hat]", f"dataset.sensitive=[{sensitive}]"],
        )
        prepared = prepare(config, faces)
        warnings = run_warnings(config, prepared, build_mechanism(config, 40))
        assert any("the tasks together tell both on all 80 records" in text for text in warnings) == told
