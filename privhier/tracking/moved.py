"""A store that was moved or copied with its artifacts: its addresses are led to where they lie now.

MLflow keeps an absolute address for every experiment, run and model, and resolves relative ones by the
folder it happens to run in. So the addresses stay absolute, and are put right whenever we open the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

ARTIFACTS = "mlartifacts"
"""The folder of artifacts beside a store in a file."""
_BUSY = 60
"""Seconds to wait for another writer."""
_COLUMNS = {"runs": ("artifact_uri", "run_uuid"), "logged_models": ("artifact_location", "model_id")}
"""Tables to the column that holds an address, and their key."""


def artifacts_of(store: Path) -> Path:
    """Where the artifacts of the store in the file ``store`` lie, absolute."""
    return store.resolve().parent / ARTIFACTS


def follow(store: Path) -> int:
    """Lead the addresses in a store to the artifacts beside it; nothing where they lead there already.

    An address stays as it is where what it names exists at its old place only.

    Args:
        store: MLflow's sqlite file, with its tables.

    Returns:
        How many experiments had another address.

    Raises:
        sqlite3.Error: The file cannot be read or written.
    """
    here = artifacts_of(store)
    with closing(sqlite3.connect(store, timeout=_BUSY)) as database:
        moved = [row for row in _experiments(database) if _elsewhere(row[1], here)]
        if not moved:
            return 0
        with database:
            for number, old in moved:
                for table, (column, key) in _tables(database):
                    _lead(database, table, column, key, number=number, old=old, here=here)
                text = "update experiments set artifact_location = ? where experiment_id = ?"
                database.execute(text, (here.as_uri(), number))
    return len(moved)


def _experiments(database: sqlite3.Connection) -> list[tuple[int, str]]:
    return database.execute("select experiment_id, artifact_location from experiments").fetchall()


def _elsewhere(location: str | None, here: Path) -> bool:
    """Whether it is a folder like ours, but not the one beside the store, which is there or may be made.

    A file that was copied without its artifacts goes on with those of the original.
    """
    place = _local(location)
    if place is None or place.name != ARTIFACTS or place == here:
        return False
    return here.is_dir() or not place.exists()


def _local(address: str | None) -> Path | None:
    """The path of a local address; None for one of another kind."""
    if not address:
        return None
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(address) if not parts.scheme and Path(address).is_absolute() else None


def _tables(database: sqlite3.Connection) -> Iterator[tuple[str, tuple[str, str]]]:
    known = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    return ((table, columns) for table, columns in _COLUMNS.items() if table in known)


def _lead(
    database: sqlite3.Connection, table: str, column: str, key: str, *, number: int, old: str, here: Path
) -> None:
    rows = database.execute(f"select {key}, {column} from {table} where experiment_id = ?", (number,))
    changed = []
    for name, address in rows.fetchall():
        if not (address or "").startswith(f"{old}/"):
            continue
        rest = address.removeprefix(f"{old}/")
        before, after = _local(address), here / unquote(rest)
        if after.exists() or before is None or not before.exists():
            changed.append((f"{here.as_uri()}/{rest}", name))
    database.executemany(f"update {table} set {column} = ? where {key} = ?", changed)
