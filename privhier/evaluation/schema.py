"""``result.json`` as a JSON Schema: shipped beside this file, for readers in other languages."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from typing import Any

from privhier.evaluation.result import SCHEMA, Result

DRAFT = "https://json-schema.org/draft/2020-12/schema"
FILE = "result.schema.json"
"""In this package; ``python -m privhier.evaluation.schema`` prints what belongs into it."""


def json_schema() -> dict[str, Any]:
    """The schema as it is shipped (JSON Schema, draft 2020-12)."""
    found: dict[str, Any] = json.loads((files(__package__) / FILE).read_text("utf-8"))
    return found


def schema_text() -> str:
    """The schema as it follows from ``Result``.

    A field that results of earlier versions lack is not required. That ``low <= value <= high`` holds in
    every score, and how many rows a table of label counts has, JSON Schema cannot say; ``Result.read`` checks
    it.
    """
    made = Result.model_json_schema(by_alias=True, mode="validation")
    head = {"$schema": DRAFT, "$id": f"urn:{SCHEMA.replace('/', ':')}"}
    return json.dumps(head | _untitled(made), indent=1) + "\n"


def _untitled(part: Any) -> Any:
    """Without pydantic's titles, which repeat the names."""
    if isinstance(part, dict):
        return {
            key: _untitled(value)
            for key, value in part.items()
            if key != "title" or not isinstance(value, str)
        }
    return [_untitled(one) for one in part] if isinstance(part, list) else part


if __name__ == "__main__":
    sys.stdout.write(schema_text())
