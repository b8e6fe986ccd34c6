"""From a label file's bytes to its lines: the encoding is known, or the file is refused by name and line."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

from privhier.datasets.listing import malformed_file
from privhier.errors import DataError

MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's: the longer ones first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the encoding that each says beyond doubt."""

FOREIGN = (
    (
        b"PK\x03\x04",
        "is an archive or a spreadsheet, not text",
        "Unpack it, or save the table as CSV (UTF-8)",
    ),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet, not text", "Save the table as CSV (UTF-8)"),
    (b"\x1f\x8b", "is packed by gzip", "Unpack it: gunzip"),
    (b"%PDF", "is a PDF, not text", "Download the label file itself"),
    (b"<!doctype", "is a web page, not a label file", "Download the file itself; a page may ask to sign in"),
    (b"<html", "is a web page, not a label file", "Download the file itself; a page may ask to sign in"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file", "Fetch it: git lfs pull"),
)
"""First bytes (in lower case) of what is often saved under a label file's name."""

SAVE_AS = "Save it as UTF-8, for instance: iconv -f {} -t UTF-8 OLD > NEW"
BLANKS = (
    " \t\r\n\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"
    + "".join(chr(code) for code in range(0x2000, 0x200B))
)
"""What is stripped off headers and cells: all of Unicode's blanks, and its characters without a width."""


def clean(cell: str) -> str:
    """A cell without the blanks around it, in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", cell.strip(BLANKS))


def read_lines(path: Path) -> list[str]:
    """The lines of a label file, without their ends; line ends of Unix, Windows and old Macs.

    UTF-8, or what a byte order mark says. Anything else is refused, never guessed: Windows-1252 and its like
    give other names for the same bytes.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or holds NUL characters; with file and line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read()
    except OSError as error:
        raise malformed_file(
            path, f"could not be read: {error.strerror or error}", "Mend the file's permissions or its disk"
        ) from error
    _refuse_foreign(path, data)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(path, data, encoding, error) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise malformed_file(
            path, f"line {line} holds a NUL character", "Write the file again: it was damaged, or is no text"
        )
    return text.split("\n")


def _refuse_foreign(path: Path, data: bytes) -> None:
    head = data[:64].lstrip().lower()
    for mark, rule, remedy in FOREIGN:
        if head.startswith(mark.lower()):
            raise malformed_file(path, rule, remedy)
    marked = any(data.startswith(mark) for mark, _ in MARKS)
    if not marked and data.count(0) > len(data) // 4:
        little = data[1::2].count(0) >= data[0::2].count(0)
        rule = "line 1 holds NUL characters: this is UTF-16 without a byte order mark"
        raise malformed_file(path, rule, SAVE_AS.format("UTF-16LE" if little else "UTF-16BE"))


def _undecodable(path: Path, data: bytes, encoding: str, error: UnicodeDecodeError) -> DataError:
    before = data[: error.start].decode(encoding, errors="ignore")
    line = before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    if encoding not in ("utf-8", "utf-8-sig"):
        rule = f"line {line} is not {encoding.upper()}, which the file's byte order mark promises"
        return malformed_file(path, f"{rule}: {error.reason}", "Write the file again: it was cut or damaged")
    start = max(data.rfind(b"\n", 0, error.start), data.rfind(b"\r", 0, error.start)) + 1
    end = min(
        (place for place in (data.find(b"\n", start), data.find(b"\r", start)) if place >= 0), default=-1
    )
    there = data[start : end if end >= 0 else None][:60].strip()
    hint = f"as Windows-1252 it reads {there.decode('cp1252', errors='replace')!r}"
    return malformed_file(
        path,
        f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}; {hint})",
        SAVE_AS.format("WINDOWS-1252"),
    )
