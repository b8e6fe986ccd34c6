"""MLflow's store as one sqlite file: its address, whatever its folder is called, and its first opening."""

from __future__ import annotations

import re
from pathlib import Path

from privhier.storage.locks import exclusive

_SCHEME = re.compile(r"sqlite(\+\w+)?:///")
_BUSY = 60
"""Seconds to wait for a file that another run writes to."""


def sqlite_uri(path: Path) -> str:
    """The address of the file ``path``, absolute. SQLAlchemy reads ``%`` and ``?`` in an address as its own.

    An escaped path names its driver as well: MLflow would take ``sqlite:///`` for a path as it stands, and
    make that folder.
    """
    text = path.as_posix()
    if "%" not in text and "?" not in text:
        return f"sqlite:///{text}"
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=text).render_as_string()


def sqlite_path(uri: str) -> Path | None:
    """The file an address names; None where it is another kind of store, or one in memory."""
    if not _SCHEME.match(uri):
        return None
    from sqlalchemy.engine import make_url

    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" else None


def patient(uri: str) -> str:
    """The address with a wait for other writers, where it is sqlite's and says nothing of its own."""
    return f"{uri}?timeout={_BUSY}" if _SCHEME.match(uri) and "?" not in uri else uri


def create_whole(path: Path) -> None:
    """Make MLflow's tables in a new file, unless there is one with content; one process at a time.

    MLflow's migrations are no transaction: two at once ruin each other, and one that is killed leaves a
    store that opens never again. So they run in a file beside it, which gets its name when it is whole.

    Raises:
        Exception: What MLflow, sqlite or the disk raises.
    """
    if has_content(path):
        return
    with exclusive(path.with_name(path.name + ".lock")):
        if has_content(path):
            return
        from mlflow import MlflowClient

        fresh = path.with_name(path.name + ".new")
        try:
            for old in (fresh, fresh.with_name(fresh.name + "-journal")):
                old.unlink(missing_ok=True)
            # absolute: the address of a relative path would change with the folder we are in
            uri = sqlite_uri(fresh.absolute())
            MlflowClient(tracking_uri=uri, registry_uri=uri)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def has_content(path: Path) -> bool:
    """Whether a store was begun in the file."""
    return path.exists() and path.stat().st_size > 0
