"""Named consumers in the registry store on PostgreSQL: of all daemons together."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.log.audit import Deed
from universal_registry.log.cursor import Cursor
from universal_registry.registry.consumers import Consumer
from universal_registry.storage.audit_postgres import append
from universal_registry.storage.consumer_rows import consumer_from, consumer_row
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("postgres/consumers.sql")
_STORE = "registry"


class PgConsumers:
    """The ConsumerStore of one schema."""

    def __init__(self, database: PgDatabase) -> None:
        self._database = database

    async def consumers(self) -> Sequence[Consumer]:
        """All, by name."""
        return [consumer_from(row) for row in await self._database.fetch(_SQL["consumers"])]

    async def consumer(self, name: str) -> Consumer | None:
        """The one of that name."""
        rows = [] if chr(0) in name else await self._database.fetch(_SQL["consumer"], name)
        return consumer_from(rows[0]) if rows else None

    async def keep(self, consumer: Consumer, told: Deed) -> None:
        """Add it, or put it in the place of the one of that name."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["keep"], *consumer_row(consumer))
            await append(connection, _STORE, [told])

    async def acknowledge(self, name: str, cursor: Cursor, at: str) -> bool:
        """Move its cursor, not backwards in the same history. Whether there is such a consumer."""
        if chr(0) in name:
            return False
        async with self._database.transaction() as connection:
            given = (name, cursor.incarnation, cursor.revision, str(cursor), at)
            return bool(await connection.fetch(_SQL["acknowledge"], *given))

    async def remove_consumer(self, name: str, told: Deed) -> bool:
        """Whether there was one; it is gone now."""
        if chr(0) in name:
            return False
        async with self._database.transaction() as connection:
            found = bool(await connection.fetch(_SQL["remove"], name))
            if found:
                await append(connection, _STORE, [told])
        return found
