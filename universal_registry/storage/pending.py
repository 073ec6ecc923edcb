"""Which steps of a schema a store still lacks. Looks at the files, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import apsw

from universal_registry.kernel.errors import NewerStore
from universal_registry.kernel.settings import Places
from universal_registry.storage.database import translated
from universal_registry.storage.sqlfiles import load_migrations


class Pending(NamedTuple):
    """A migration that was not run yet."""

    store: str
    number: int
    name: str


def pending_migrations(places: Places) -> list[Pending]:
    """The migrations that opening the stores of a home for writing would run. Raises NewerStore, Corrupt."""
    found = []
    for store, path in (("registry", places.registry_db), ("propagation", places.propagation_db)):
        steps = load_migrations(store, "sqlite")
        version = _version(path) if path.exists() else 0
        if version > len(steps):
            raise NewerStore(
                f"{path} has schema {version}; this program knows up to {len(steps)}",
                hint="start the newer universal-registry that wrote it",
            )
        found += [Pending(store, step.number, step.name) for step in steps[version:]]
    return found


def integrity(path: Path) -> list[str]:
    """What SQLite finds wrong with the file itself; empty when it is whole."""
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            rows = connection.execute("PRAGMA integrity_check(10)").fetchall()
        finally:
            connection.close()
    return [str(row[0]) for row in rows if row[0] != "ok"]


def _version(path: Path) -> int:
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            version: int = connection.pragma("user_version")
            return version
        finally:
            connection.close()
