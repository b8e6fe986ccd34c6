"""Records without a label: left out of the runs that use it, reported, never a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privhier.config import DatasetConfig
from privhier.datasets.attributes import evaluate_attribute
from privhier.datasets.base import FaceDataset, Problem, examples
from privhier.datasets.check import check_dataset
from privhier.datasets.fairface import FairFace
from privhier.datasets.folder import Folder
from privhier.datasets.load import load_dataset
from privhier.errors import DataError

MakeConfig = Callable[..., DatasetConfig]

ROWS = """,image,hat,smile,age,who
0,a.png,yes,True,20,Ann
1,b.png,NA,FALSE,1_000,Bo
2,c.png,no,false,31,?
3,d.png,no,TRUE,n/a,Di
4,e.png,yes,False,42,Ed
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for number, name in enumerate("abcde"):
        Image.new("RGB", (16, 16), (40 * number, 9, 9)).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text(ROWS)
    return folder


def kinds(faces: FaceDataset) -> Counter[str]:
    return Counter(problem.reason.partition(":")[0] for problem in faces.problems)


def test_only_runs_that_use_a_label_lose_the_record(make_config: MakeConfig, root: Path) -> None:
    smile = load_dataset(make_config("folder", root=str(root), task=["smile"], sensitive=["who"]), seed=0)
    assert len(smile) == 4  # "who" is a column here, and c.png has none
    assert smile.attributes["smile"].tolist() == ["True", "False", "True", "False"]
    assert smile.unavailable == {
        "hat": "1 of 5 records lack it, and this run did not name it",
        "age": "2 of 5 records lack it, and this run did not name it",
    }
    assert tuple(smile.attributes) == ("smile", "who")
    assert [(problem.where, problem.reason) for problem in smile.problems] == [
        ("c.png", "missing label: who")
    ]

    config = make_config("folder", root=str(root), task=["hat"], sensitive=["age>30"])
    faces = load_dataset(config, seed=0)
    assert faces.attributes["age"].tolist() == [20, 31, 42]
    assert faces.attributes["age"].dtype == np.int64
    assert faces.attributes["hat"].dtype == np.dtype("<U3")
    assert set(faces.attributes["hat"].tolist()) == {"yes", "no"}
    assert kinds(faces) == {"missing label": 2}
    reasons = {problem.where: problem.reason for problem in faces.problems}
    assert reasons["b.png"].startswith("missing label: hat; unreadable label: age is '1_000'")
    assert evaluate_attribute("smile==true", faces).values.tolist() == [1, 0, 0]
    lines = "\n".join(check_dataset(config).lines())
    assert "no who: 1 of 5 records lack it" in lines
    assert "layout: labels in labels.csv, separated by commas" in lines


def test_a_gap_is_never_evaluated(make_config: MakeConfig, root: Path) -> None:
    faces = load_dataset(make_config("folder", root=str(root), task=["smile"], sensitive=["who"]), seed=0)
    for expression in ("hat", "hat==no", "bin(age, 30)"):
        with pytest.raises(DataError, match="records lack it"):
            evaluate_attribute(expression, faces)


def test_a_record_without_a_person_is_always_left_out(make_config: MakeConfig, root: Path) -> None:
    (root / "labels.csv").write_text(ROWS.replace("42,Ed", "42,ann"))
    config = make_config("folder", root=str(root), task=["smile"], options={"identity": "who"})
    faces = load_dataset(config, seed=0)
    assert faces.identity is not None
    assert faces.identity.tolist() == [0, 1, 2, 0]  # Ann and ann are one person
    assert kinds(faces) == {"missing label": 1, "values alike": 1}


def test_missing_can_be_a_class_where_it_is_said(root: Path) -> None:
    listing = Folder(missing=["?"]).read(root, seed=0)
    assert set(listing.attributes["hat"].tolist()) == {"yes", "no", "NA"}
    assert list(listing.lacking) == ["who"]
    assert "mixed column" in listing.notes["age"][0]  # "n/a" is text now


def test_nothing_left_counts_the_kinds(make_config: MakeConfig, root: Path) -> None:
    (root / "labels.csv").write_text("image,age\na.png,1_0\nb.png,nan\nz.png,2\n")
    with pytest.raises(DataError) as caught:
        load_dataset(make_config("folder", root=str(root), task=["age"]), seed=0)
    for text in (
        "6 problems, the first: z.png (label row without image: labels.csv)",
        "3 like c.png (image without label row",
        "1 like a.png (unreadable label: age is '1_0': not a number",
        "1 like b.png (missing label: age)",
    ):
        assert text in caught.value.rule


def test_every_kind_of_problem_is_among_the_examples() -> None:
    problems = [*(Problem(str(number), "image without label row: l.csv") for number in range(50))]
    problems += [Problem("x", "mixed column: x"), Problem("y", "missing label: x")]
    assert [problem.where for problem in examples(problems, 4)] == ["0", "1", "x", "y"]
    assert examples(problems, 99) == tuple(problems)


def test_notes_of_used_columns_are_problems(make_config: MakeConfig, root: Path) -> None:
    (root / "labels.csv").write_text("image,sex,code\na.png,male,7b\nb.png,Male,8\nc.png,female,9\n")
    used = load_dataset(make_config("folder", root=str(root), task=["sex"], sensitive=["code"]), seed=0)
    assert {"values alike", "mixed column"} < set(kinds(used))
    other = load_dataset(make_config("folder", root=str(root), task=["code"], sensitive=["x"]), seed=0)
    assert "values alike" not in kinds(other)


def test_fairface_classes_are_closed(make_config: MakeConfig, tmp_path: Path) -> None:
    rows = ["3-9,Male,White,True", "9-Mar,male,Black,FALSE", "19-Oct,Female,Indian,False"]
    rows += ["20-29,F,East Asian,True", "120,Female,Martian,True", "NA,Female,White,1"]
    root = tmp_path / "fairface"
    for part in ("train", "val"):
        (root / part).mkdir(parents=True)
        lines = [f"{part}/{number}.jpg,{row}" for number, row in enumerate(rows, 1)]
        for number in range(1, len(rows) + 1):
            Image.new("RGB", (16, 16), (40 * number, len(part), 9)).save(root / part / f"{number}.jpg")
        text = "\n".join(["file,age,gender,race,service_test", *lines])
        (root / f"fairface_label_{part}.csv").write_text(text)
    listing = FairFace().read(root, seed=0)
    assert listing.problems == ()
    assert {name: sorted(row % 6 for row in gaps)[::2] for name, gaps in listing.lacking.items()} == {
        "age": [1, 2, 4, 5],
        "gender": [3],
        "race": [4],
        "service_test": [5],
    }
    assert listing.lacking["age"][1] == "unreadable label: age is '9-Mar': a spreadsheet made a date of 3-9"
    assert (
        listing.lacking["age"][2] == "unreadable label: age is '19-Oct': a spreadsheet made a date of 10-19"
    )
    assert "not one of 0-2, 3-9" in listing.lacking["age"][4]
    assert listing.lacking["age"][5] == "missing label: age"
    config = make_config("fairface", root=str(root), task=["gender"], sensitive=["race==White"])
    faces = load_dataset(config, seed=0)
    assert set(faces.attributes["gender"].tolist()) == {"Male", "Female"}
    assert len(faces) == 8
