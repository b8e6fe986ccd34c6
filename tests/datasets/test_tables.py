"""Label files as people have them: encodings, delimiters, quotes, headers."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from privhier.datasets.label_text import read_lines
from privhier.datasets.tables import read_table
from privhier.errors import DataError


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    "data",
    [
        "image,who\na.jpg,José\n".encode(),
        codecs.BOM_UTF8 + "image,who\r\na.jpg,José\r\n".encode(),
        codecs.BOM_UTF16_LE + "image,who\na.jpg,José".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "image,who\ra.jpg,José\r".encode("utf-16-be"),
        codecs.BOM_UTF32_LE + "image,who\na.jpg,José\n".encode("utf-32-le"),
        "image,who\na.jpg,Jose\u0301\n".encode(),
        "image;who\na.jpg;José\n".encode(),
        "image\twho\na.jpg\tJosé\n".encode(),
        "sep=;\nimage;who\na.jpg;José\n".encode(),
        '"image", " who "\n"a.jpg", "José"\n'.encode(),
        "\n image\u00a0, who\n\n a.jpg ,\u00a0José,,\n,\n".encode(),
    ],
    ids=["plain", "bom", "utf16le", "utf16be", "utf32", "nfd", "semicolon", "tab", "sep", "quoted", "blanks"],
)
def test_one_table_in_many_forms(tmp_path: Path, data: bytes) -> None:
    table = read_table(written(tmp_path / "labels.csv", data), ["image"])
    assert table.header == ("image", "who")
    assert table.column("image") == ["a.jpg"]
    assert table.column("who") == ["José"]
    assert table.problems == ()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            "image,who\na.jpg,Ann\nb.jpg,José\n".encode("cp1252"),
            ["line 3", "0xe9", "'b.jpg,José'", "WINDOWS-1252"],
        ),
        ("image,who\ra.jpg,Ann\rb.jpg,Zo\xeb\r".encode("latin-1"), ["line 3", "0xeb"]),
        (
            "image,who\na.jpg,Ann\n".encode("utf-16-le"),
            ["line 1", "UTF-16 without a byte order mark", "UTF-16LE"],
        ),
        (
            "image,who\na.jpg,José\n".encode("utf-16-be"),
            ["line 1", "UTF-16 without a byte order mark", "UTF-16BE"],
        ),
        (b"PK\x03\x04" + bytes(60), ["is an archive or a spreadsheet", "save the table as CSV"]),
        ("\n<!DOCTYPE html>\n<html>Sign in, please", ["is a web page"]),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["Git LFS"]),
        (codecs.BOM_UTF16_LE + b"i\0m\0\n\0x", ["line 2", "UTF-16", "byte order mark"]),
        (b"image,who\na.jpg,Ann\nb.jpg,\0\n", ["line 3", "NUL"]),
        ('image,who\na.jpg,"Ann\nb.jpg,Bo\n', ["line 2", "a quote that is not closed"]),
        ('image,who\na.jpg,"Ann\nb.jpg,Bo\nc.jpg,"Cy\n', ["line 2", "a quote that is not closed"]),
        ('image,who\na.jpg,"Ann"x\n', ["line 2", "expected after"]),
        ('image,who\na.jpg,"' + "x" * 200_000 + "\n", ["line 2", "cannot be read"]),
        ('image,"who\na.jpg,Ann\n', ["line 1", "a quote that is not closed"]),
        ("image,who,who\na.jpg,1,2\n", ["two columns named 'who'", "columns 2 and 3"]),
        ("image,who, who \na.jpg,1,2\n", ["two columns named 'who'", "columns 2 and 3"]),
        ("image,who\n0,a.jpg,Ann\n1,b.jpg,Bo\n", ["line 2 has 3 cells", "index column"]),
        ("\n\n", ["is empty"]),
    ],
)
def test_refusals_name_file_and_line(tmp_path: Path, data: bytes | str, says: list[str]) -> None:
    path = written(tmp_path / "labels.csv", data)
    with pytest.raises(DataError) as caught:
        read_table(path, ["image"])
    assert caught.value.value == str(path)
    for text in says:
        assert text in f"{caught.value.rule}. {caught.value.remedy}"


def test_ragged_rows_are_problems_with_their_line(tmp_path: Path) -> None:
    text = "image,who\na.jpg,Ann\nb.jpg\n\nc.jpg,Cy,3\nd.jpg,Di\n"
    table = read_table(written(tmp_path / "labels.csv", text), ["image"])
    assert table.column("who") == ["Ann", "Di"]
    assert table.lines == [2, 6]
    assert [(problem.where, problem.reason) for problem in table.problems] == [
        ("labels.csv line 3", "ragged row: 1 cells, the header has 2"),
        ("labels.csv line 5", "ragged row: 3 cells, the header has 2"),
    ]


@pytest.mark.parametrize("index", ["", " ", '""', "Unnamed: 0", "Unnamed: 0.1"])
def test_an_index_column_has_no_name(tmp_path: Path, index: str) -> None:
    table = read_table(written(tmp_path / "labels.csv", f"{index},image,x\n0,a.jpg,1\n1,b.jpg,2\n"))
    assert table.names() == ["image", "x"]
    assert table.column("image") == ["a.jpg", "b.jpg"]


def test_the_needed_columns_choose_the_delimiter(tmp_path: Path) -> None:
    text = "image;height, in m, as said\na.jpg;1,8\n"
    assert read_table(written(tmp_path / "labels.csv", text), ["image"]).header == (
        "image",
        "height, in m, as said",
    )


def test_a_label_file_that_may_not_be_read_is_typed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be read"):
        read_lines(tmp_path)
