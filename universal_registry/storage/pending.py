"""Which steps of a schema a store still lacks, on either engine. Looks, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import apsw

from universal_registry.kernel.errors import NewerStore
from universal_registry.kernel.settings import Places, PostgresSettings
from universal_registry.kernel.world import World
from universal_registry.storage.database import translated
from universal_registry.storage.sqlfiles import load_migrations

STORES = ("registry", "propagation")


class Pending(NamedTuple):
    """A migration that was not run yet."""

    store: str
    number: int
    name: str


def pending_migrations(places: Places) -> list[Pending]:
    """The migrations that opening the stores of a home for writing would run. Raises NewerStore, Corrupt."""
    found = []
    for store, path in zip(STORES, (places.registry_db, places.propagation_db), strict=True):
        steps = load_migrations(store, "sqlite")
        version = _version(path) if path.exists() else 0
        if version > len(steps):
            raise NewerStore(
                f"{path} has schema {version}; this program knows up to {len(steps)}",
                hint="start the newer universal-registry that wrote it",
            )
        found += [Pending(store, step.number, step.name) for step in steps[version:]]
    return found


async def pending_on_server(settings: PostgresSettings, world: World) -> list[Pending]:
    """The same of a PostgreSQL database. Raises NewerStore, StorageUnavailable."""
    from universal_registry.storage.postgres import PgDatabase
    from universal_registry.storage.postgres_schema import missing_steps

    found = []
    for store in STORES:
        database = PgDatabase(settings, store, world, read_only=True, size=1)
        async with database.long_snapshot() as connection:
            steps = await missing_steps(connection, store, database.place)
        found += [Pending(store, step.number, step.name) for step in steps]
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
