"""Attribute expressions in lists: YAML cuts ``[bin(age, 20, 40), gender]`` at its commas; this joins them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

EXPRESSIONS = ("dataset.task", "dataset.sensitive", "task")
"""Keys of lists of attribute expressions; the last is that of a file for the cloud."""
_CALL = re.compile(r"\s*[A-Za-z_]\w*\s*\(")
"""How an expression with commas begins; a comparison may hold a lone parenthesis in its value."""


def join_calls(value: Any) -> Any:
    """Join what a parenthesis holds open: ``["bin(age", 20, "40)"]`` to ``["bin(age, 20, 40)"]``.

    What is no list, and items that begin no call, are left as they are.

    Raises:
        ValueError: A call that is not closed in the list, or that holds more than text and numbers.
    """
    if not isinstance(value, list):
        return value
    joined, open_parts = list[Any](), list[str]()
    for item in value:
        if not open_parts and not (isinstance(item, str) and _CALL.match(item)):
            if isinstance(item, dict) and any(_CALL.match(str(name)) for name in item):
                raise ValueError(_ask_for_quotes(str(item)))
            joined.append(item)
            continue
        if not isinstance(item, str | int | float) or isinstance(item, bool):
            raise ValueError(_ask_for_quotes(f"{', '.join(open_parts)}, {item}"))
        open_parts.append(str(item).strip())
        text = ", ".join(open_parts)
        if text.count("(") <= text.count(")"):
            joined.append(text if len(open_parts) > 1 else item)
            open_parts.clear()
    if open_parts:
        raise ValueError(_ask_for_quotes(", ".join(open_parts)))
    return joined


Expressions = Annotated[list[str], BeforeValidator(join_calls)]
"""Attribute expressions, one an item."""


def quote_calls(text: str) -> str:
    """The flow list ``text`` with quotes around every expression that holds a parenthesis.

    So that YAML takes it as it is written: ``020`` is 20 here, and 16 as a number of YAML's. What is no
    such list, or is not closed, is returned unchanged.

    Example:
        >>> quote_calls("[bin(age, 20, 40), gender]")
        "['bin(age, 20, 40)', gender]"
    """
    inner = text.strip()
    if not (inner.startswith("[") and inner.endswith("]")):
        return text
    pieces = _pieces(inner[1:-1])
    if pieces is None:
        return text
    return f"[{', '.join(_quoted(piece) for piece in pieces)}]"


def _pieces(text: str) -> list[str] | None:
    """Cut at the commas outside of quotes and parentheses; None where one of those stays open."""
    pieces, depth, quote = [""], 0, ""
    for character in text:
        before = pieces[-1].rstrip()
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and (not before or before[-1] in "=<>"):
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and depth == 0:
            pieces.append("")
            continue
        pieces[-1] += character
    return None if quote or depth else [piece.strip() for piece in pieces]


def _quoted(piece: str) -> str:
    if "(" not in piece or piece[0] in "'\"":
        return piece
    return "'" + piece.replace("'", "''") + "'"


def _ask_for_quotes(text: str) -> str:
    return f"{text!r} is a piece of an expression with a parenthesis; put quotes around the whole expression"
