"""State dicts from other people's files: tensors and nothing else, refused in words of our own."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from privhier.errors import PrivhierError

SUFFIXES = (".pth", ".pt", ".safetensors")
Refuse = Callable[[str, str], PrivhierError]
"""Makes the error of whoever asked, from a rule and a remedy."""

_WRAPPERS = ("module", "_orig_mod")
"""Names that DataParallel (and its kin) and ``torch.compile`` put between the names of modules."""
_AGAIN = "Get the file again, and compare its size and checksum with what the source says"
_SAVE = "Save model.state_dict() where the model was made, and give that file"
_PICKLES = (b"\x80", b"(", b"c", b"]", b"}")


def read_state(file: Path, refuse: Refuse) -> dict[str, Tensor]:
    """The state dict in ``file``, as it stands; never unpickled beyond tensors.

    Args:
        file: Ends in one of ``SUFFIXES``.
        refuse: Makes the error.

    Raises:
        PrivhierError: What ``refuse`` makes: no such file, a file of another kind, a damaged one, or one
            that holds more than names and tensors.
    """
    if not file.is_file():
        raise refuse("is not a file", "Give the path of a .pth or .safetensors state dict")
    if file.suffix not in SUFFIXES:
        raise refuse(f"must end in {', '.join(SUFFIXES)}", "Save the state dict in one of these forms")
    try:
        if why := foreign(file):
            raise _unread(refuse, why, _AGAIN)
        state = (
            _from_safetensors(file, refuse) if file.suffix == ".safetensors" else _from_torch(file, refuse)
        )
    except OSError as error:
        raise _unread(
            refuse, f"it cannot be opened ({error.strerror or error})", "Mend its rights"
        ) from error
    if not _flat(state):
        inside = [key for key, value in state.items() if _flat(value)] if isinstance(state, Mapping) else []
        where = f"; it is a checkpoint with a state dict under {inside[0]!r}" if inside else ""
        raise refuse(
            f"must be a flat mapping of names to tensors{where}",
            "Save model.state_dict() itself, not a checkpoint around it",
        )
    return {str(key): value for key, value in state.items()}


def _flat(state: Any) -> TypeGuard[Mapping[object, Tensor]]:
    return isinstance(state, Mapping) and bool(state) and all(isinstance(v, Tensor) for v in state.values())


def unwrapped(state: Mapping[str, Tensor], known: Container[str], refuse: Refuse) -> dict[str, Tensor]:
    """Without the names that DataParallel and ``torch.compile`` add, wherever they stand in a key.

    Args:
        state: As in the file.
        known: Keys of the network it is for; these stay as they are.
        refuse: Makes the error.

    Raises:
        PrivhierError: Two keys of the file become one.
    """
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        plain = key if key in known else ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if plain in made:
            raise refuse(f"holds {plain} twice, once as {key}", "Save the state dict of one model")
        made[plain] = value
    return made


def foreign(file: Path) -> str | None:
    """What a file is that nobody wrote as weights: a web page, a pointer, nothing. None: it may be weights.

    Raises:
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(1024)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "it is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--", b"<body")):
        return "it is a web page, not the file the page links to"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file it stands for"
    if start.startswith((b"{", b"[")) and start[:200].isascii() and b"\x00" not in head:
        return "it is a JSON text"
    return None


def _from_safetensors(file: Path, refuse: Refuse) -> object:
    try:
        return load_file(file)
    except (SafetensorError, ValueError, RuntimeError) as error:
        if zipfile.is_zipfile(file):
            raise _unread(refuse, "torch.save wrote it", "Let its name end in .pth") from error
        raise _unread(refuse, "it is no safetensors file, or a damaged or cut-off one", _AGAIN) from error


def _from_torch(file: Path, refuse: Refuse) -> object:
    with file.open("rb") as stream:
        head = stream.read(9)
    if head.startswith(b"PK"):
        _check_zip(file, refuse)
    elif head[8:] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        raise _unread(refuse, "it is a safetensors file", "Let its name end in .safetensors")
    elif not head.startswith(_PICKLES):
        raise _unread(refuse, "torch.save did not write it", _SAVE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols that are not torch's own: it may read them or not
            loaded: object = torch.load(file, map_location="cpu", weights_only=True)
        return loaded
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f", such as {named[1]}" if named else ""
        raise _unread(
            refuse, f"it is a pickled model, or holds other objects than tensors{what}", _SAVE
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _unread(refuse, "it is damaged or cut off", _AGAIN) from error


def _check_zip(file: Path, refuse: Refuse) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            bad = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _unread(refuse, "it is damaged or cut off", _AGAIN) from error
    if bad is not None:
        raise _unread(refuse, f"it is damaged: the checksum of {bad} is wrong", _AGAIN)
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise _unread(refuse, "it is a TorchScript program", _SAVE)
    if not any(name.endswith("/data.pkl") for name in names):
        raise _unread(refuse, "it is a zip archive that torch.save did not write", _SAVE)


def _unread(refuse: Refuse, why: str, remedy: str) -> PrivhierError:
    return refuse(f"cannot be read as tensors: {why}", remedy)
