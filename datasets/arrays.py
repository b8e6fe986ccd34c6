"""Faces held in memory: a ``FaceDataset`` made from arrays, for data that no layout here describes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from privhier.datasets.base import FaceDataset, ImageArray, IntArray
from privhier.datasets.listing import Listing, Source
from privhier.datasets.near_doubles import find_near_doubles
from privhier.datasets.registry import datasets
from privhier.datasets.versions import group_versions
from privhier.errors import DataError

NAME = "arrays"
_KINDS = {"b": "booleans", "i": "integers", "u": "integers", "f": "numbers", "U": "text"}


@datasets.register(NAME)
class Arrays(Source):
    """Faces made from arrays in memory: ``privhier.datasets.from_arrays(images, attributes)``."""

    on_disk: ClassVar[bool] = False

    def read(self, root: Path, *, seed: int) -> Listing:
        """Nothing to read.

        Raises:
            DataError: Always: such faces are handed over.
        """
        raise DataError(
            key="dataset.name",
            value=NAME,
            rule="names faces in memory, which no folder holds",
            remedy="Hand them over in Python: privhier.run(config, dataset=faces), "
            "privhier.open_run(folder, dataset=faces)",
        )


def from_arrays(
    images: npt.ArrayLike,
    attributes: Mapping[str, npt.ArrayLike],
    *,
    identity: npt.ArrayLike | None = None,
    photo: npt.ArrayLike | None = None,
    value_names: Mapping[str, Mapping[int, str]] | None = None,
) -> FaceDataset:
    """Faces and their labels from arrays in memory.

    Identical pictures and near-doubles (crops, mirrored or re-encoded versions) share a group that no
    split cuts, as with every other data set.

    Args:
        images: uint8 RGB ``(N, 3, S, S)`` or ``(N, S, S, 3)``, S at least 16 pixels; copied.
        attributes: Column name to N values: booleans, integers, numbers or text; none missing.
        identity: N person numbers or names; None: people are not known.
        photo: N numbers, the same for all versions of one photo, where that is known.
        value_names: Human names of coded values, e.g. ``{"gender": {0: "male", 1: "female"}}``.

    Raises:
        DataError: Wrong type or shape, lengths that differ, a value that is missing.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> images = rng.integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
        >>> faces = from_arrays(images, {"smiling": [0, 1, 0, 1, 0, 1]}, identity=list("aabbcc"))
        >>> len(faces), faces.identity.tolist()
        (6, [0, 0, 1, 1, 2, 2])
    """
    pictures = _pictures(images)
    n = len(pictures)
    if not isinstance(attributes, Mapping):
        _refuse("attributes", type(attributes).__name__, "must map names to columns", 'Write {"male": [...]}')
    for name in {*map(str, attributes), *(value_names or {})}:
        if not name.isidentifier() or name == "identity" or name not in map(str, attributes):
            _refuse(
                "attributes" if name in map(str, attributes) else "value_names",
                name,
                "must be the name of a column: letters, digits, _; identity has an argument of its own",
                "Give it such a name",
            )
    columns = {str(name): _column(f"attributes[{name!r}]", values, n) for name, values in attributes.items()}
    if not columns:
        _refuse("attributes", {}, "must hold at least one column", "Give a column of labels for each image")
    people = None if identity is None else _numbered("identity", identity, n)
    photos = None if photo is None else _numbered("photo", photo, n)
    digests = np.stack(
        [np.frombuffer(hashlib.sha256(picture).digest(), dtype=np.uint8) for picture in pictures]
    )
    paths = [f"images[{row}]" for row in range(n)]
    versions = group_versions(paths, digests, photos, find_near_doubles(pictures))
    return FaceDataset(
        name=NAME,
        images=pictures,
        attributes=columns,
        identity=people,
        group=versions.group if people is None else people,
        duplicate_group=versions.group,
        fingerprint=_fingerprint(digests, columns, people, photos),
        value_names=dict(value_names or {}),
        unavailable={} if people is not None else {"identity": "no identities were given with the arrays"},
        layout="arrays in memory",
        identical=versions.identical,
        notices=versions.notices,
    )


def _pictures(images: npt.ArrayLike) -> ImageArray:
    found = _array("images", images)
    shape = f"{found.dtype} {found.shape}"
    if found.dtype != np.uint8 or found.ndim != 4:
        _refuse(
            "images",
            shape,
            "must be uint8 (N, 3, S, S) or (N, S, S, 3)",
            "Convert them: floats in [0, 1] times 255, rounded, as uint8; gray pictures to three channels",
        )
    if found.shape[1] != 3 and found.shape[3] == 3:
        found = found.transpose(0, 3, 1, 2)
    n, channels, height, width = found.shape
    if channels != 3 or height != width or height < 16 or n < 1:
        _refuse("images", shape, "must be square RGB of at least 16 pixels a side", "Crop and resize them")
    own: ImageArray = np.array(found, dtype=np.uint8, order="C")
    own.flags.writeable = False
    return own


def _column(key: str, values: npt.ArrayLike, n: int) -> npt.NDArray[np.generic]:
    found = _array(key, values)
    if found.shape != (n,):
        _refuse(key, f"shape {found.shape}", f"must hold one value for each of {n} images", "Mend its length")
    if found.dtype.kind not in _KINDS:
        _refuse(
            key,
            str(found.dtype),
            f"must hold {', '.join(sorted(set(_KINDS.values())))}",
            "Drop the images whose label is missing, and convert the others",
        )
    missing = ~np.isfinite(found) if found.dtype.kind == "f" else found == ""
    if found.dtype.kind in "fU" and missing.any():
        row = int(np.flatnonzero(missing)[0])
        _refuse(
            key,
            f"row {row}, and {int(missing.sum()) - 1} more",
            "must not be missing",
            "Drop the images whose label is missing",
        )
    if found.dtype.kind in "biu":
        if found.dtype.kind == "u" and found.max(initial=0) > np.iinfo(np.int64).max:
            _refuse(key, str(found.max()), "must fit 64 bits with a sign", "Number the classes anew")
        found = found.astype(np.int64)  # the same labels are the same data, however wide
    elif found.dtype.kind == "f":
        found = found.astype(np.float64)
    found.flags.writeable = False
    return found


def _array(key: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.array(values)
    except ValueError as error:
        raise DataError(
            key=key, value=type(values).__name__, rule=f"is no array: {error}", remedy="Give equal lengths"
        ) from error


def _numbered(key: str, values: npt.ArrayLike, n: int) -> IntArray:
    column = _column(key, values, n)
    numbers: IntArray = np.unique(column, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return numbers


def _fingerprint(
    digests: npt.NDArray[np.uint8],
    columns: Mapping[str, npt.NDArray[np.generic]],
    people: IntArray | None,
    photos: IntArray | None,
) -> str:
    digest = hashlib.sha256(f"{NAME} 1\n".encode() + digests.tobytes())
    given = {**columns, "/identity": people, "/photo": photos}
    for name in sorted(name for name, column in given.items() if column is not None):
        column = np.ascontiguousarray(given[name])
        digest.update(f"\n{name} {column.dtype}\n".encode() + column.tobytes())
    return digest.hexdigest()


def _refuse(key: str, value: object, rule: str, remedy: str) -> NoReturn:
    raise DataError(key=key, value=value, rule=rule, remedy=remedy)
