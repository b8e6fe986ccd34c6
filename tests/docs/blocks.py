"""What the pages' blocks of code are: how they are found, and what their marks mean (read by path).

``sh``: commands that are run, in order; with the title "two terminals, at the same time" at once, each in a
process of its own. ``console``: commands that need another machine, a card or real faces; only their verbs,
options and configurations are checked. A title that is a file's name: the block is that file. ``python`` is
run. ``text`` is no code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(
    r"^```(?P<language>[\w-]*)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<text>.*?)^```$", re.M | re.S
)
LANGUAGES = {"sh", "console", "yaml", "csv", "toml", "python", "text"}
RUN_AT_ONCE = "two terminals, at the same time"


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is."""
        return self.title if re.search(r"\.\w+$", self.title) else None


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(m["language"], m["title"] or "", m["text"]) for m in _FENCE.finditer(path.read_text())]


def fences(path: Path) -> int:
    """How many lines begin or end a block."""
    return sum(line.lstrip().startswith("```") for line in path.read_text().splitlines())
