"""Which key a store was sealed with, whatever its version, and without opening anything that is sealed."""

from __future__ import annotations

from pathlib import Path

import apsw

from universal_registry.kernel.settings import PostgresSettings
from universal_registry.kernel.world import World
from universal_registry.storage.database import translated

_FACT = "SELECT value FROM {}meta WHERE key = 'key_fingerprint'"


def sealed_with(path: Path) -> str | None:
    """The fingerprint that a registry's file names; None when there is no file or nothing was sealed. Raises Corrupt,
    StorageUnavailable."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    with translated(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchall():
                return None
            rows = connection.execute(_FACT.format("")).fetchall()
        finally:
            connection.close()
    return str(rows[0][0]) if rows else None


async def sealed_with_on_server(settings: PostgresSettings, world: World) -> str | None:
    """The same of a PostgreSQL database. Raises StorageUnavailable."""
    from universal_registry.storage.postgres import PgDatabase

    database = PgDatabase(settings, "registry", world, read_only=True, size=1)
    async with database.long_snapshot() as connection:
        if not await connection.fetchval("SELECT to_regclass('registry.meta') IS NOT NULL"):
            return None
        found = await connection.fetchval(_FACT.format("registry."))
    return None if found is None else str(found)
