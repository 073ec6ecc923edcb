"""Named consumers in the registry store on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.log.audit import Deed
from universal_registry.log.cursor import Cursor
from universal_registry.registry.consumers import Consumer
from universal_registry.storage.audit_sqlite import append
from universal_registry.storage.consumer_rows import consumer_from, consumer_row
from universal_registry.storage.database import Database
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("sqlite/consumers.sql")


class SqliteConsumers:
    """The ConsumerStore of one file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def consumers(self) -> Sequence[Consumer]:
        """All, by name."""
        return [consumer_from(row) for row in self._database.read(_SQL["consumers"])]

    async def consumer(self, name: str) -> Consumer | None:
        """The one of that name."""
        rows = self._database.read(_SQL["consumer"], (name,))
        return consumer_from(rows[0]) if rows else None

    async def keep(self, consumer: Consumer, told: Deed) -> None:
        """Add it, or put it in the place of the one of that name."""
        async with self._database.transaction():
            self._database.execute(_SQL["keep"], consumer_row(consumer))
            append(self._database, [told])

    async def acknowledge(self, name: str, cursor: Cursor, at: str) -> bool:
        """Move its cursor, not backwards in the same history. Whether there is such a consumer."""
        given = {
            "name": name, "incarnation": cursor.incarnation, "revision": cursor.revision, "cursor": str(cursor),
            "at": at,
        }  # fmt: skip
        async with self._database.transaction():
            return bool(self._database.execute(_SQL["acknowledge"], given))

    async def remove_consumer(self, name: str, told: Deed) -> bool:
        """Whether there was one; it is gone now."""
        async with self._database.transaction():
            found = bool(self._database.execute(_SQL["remove"], (name,)))
            if found:
                append(self._database, [told])
        return found
