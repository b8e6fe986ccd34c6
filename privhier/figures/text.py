"""Text of figures: names are data, in any script and of any length; what is drawn can be drawn, and fits.

The figures use the font that matplotlib ships, so that they are the same on every machine. A character that
it has no glyph for (Chinese, an emoji) or that cannot be seen (a line break, a lone surrogate) is drawn as
its escape, and the figure says so; the page beside it shows the name itself.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextToPath

FONT: Final = "DejaVu Sans"
NOTE: Final = "a backslash with a number stands for a character that this figure's font cannot draw"
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_JOINERS = "\u200c\u200d"  # part of the spelling of Persian and of Indian scripts
_LONGEST = 300  # no label of a figure holds more; measuring stays cheap


@cache
def _drawable(character: str) -> bool:
    fonts = [findfont(FontProperties(family=FONT, weight=weight)) for weight in ("normal", "bold")]
    seen = character.isprintable() or character in _JOINERS
    return seen and all(get_font(font).get_char_index(ord(character)) != 0 for font in fonts)


def _escaped(character: str) -> str:
    if _drawable(character):
        return character
    number = ord(character)
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def printable(text: str) -> str:
    r"""The text with what the font cannot draw as ``\x0a``, ``\u6027`` or ``\U0001f600``.

    Example:
        >>> print(printable("smiling 性"))
        smiling \u6027
    """
    return "".join(map(_escaped, text))


def has_escapes(text: str) -> bool:
    """Whether it shows an escape of ``printable``'s."""
    return _ESCAPE.search(text) is not None


def width(text: str, size: float = 9.0, *, bold: bool = False) -> float:
    """Of one drawn line, in inches; ``size`` in points."""
    font = FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]) / 72


def fitted(text: str, inches: float, *, size: float = 9.0, bold: bool = False) -> str:
    """``printable`` text, its middle left out where it is wider than ``inches``: names differ at both ends.

    Example:
        >>> fitted("male", 1.0)
        'male'
        >>> fitted("wide " * 100 + "end", 1.0)
        'wide wid… end'
    """
    shortened = len(text) > _LONGEST
    if shortened:
        text = text[: _LONGEST // 2] + text[-_LONGEST // 2 :]
    units = list(map(_escaped, text))

    def cut(count: int) -> str:
        tail = count // 3
        return "".join([*units[: count - tail], "…", *units[len(units) - tail :]])

    if not shortened and width("".join(units), size, bold=bold) <= inches:
        return "".join(units)
    low, high = 0, max(len(units) - 1, 0)
    while low < high:  # the most units that fit beside the ellipsis
        middle = (low + high + 1) // 2
        if width(cut(middle), size, bold=bold) <= inches:
            low = middle
        else:
            high = middle - 1
    return cut(low)
