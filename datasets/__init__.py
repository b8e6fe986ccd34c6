"""The data sets, each read in its official on-disk layout.

Every built-in class is here by name (``privhier.datasets.CelebA``), beside the registry; nothing
is loaded before it is asked for.
"""

from __future__ import annotations

from typing import Any

from privhier.registry import offered

_BUILTIN = ("privhier.datasets.builtin",)
_ALSO = {
    "datasets": "privhier.datasets.registry",
    "FaceDataset": "privhier.datasets.base",
    "Listing": "privhier.datasets.listing",
    "Source": "privhier.datasets.listing",
    "from_arrays": "privhier.datasets.arrays",
    "load_dataset": "privhier.datasets.load",
}
"""What else a new one is written or asked for with, and where it is."""


def __getattr__(name: str) -> Any:
    return offered(name, "privhier.datasets", _BUILTIN, _ALSO)


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
