"""What was exchanged with studios, in the propagation store on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from universal_registry.propagation.studio.ports import MOST_KEPT, Exchanged
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("postgres/studio.sql")


class PgStudio:
    """The SyncLog of one schema."""

    def __init__(self, database: PgDatabase) -> None:
        self._database = database

    async def add_exchanged(self, rows: Sequence[Exchanged]) -> None:
        """Add them, in one commit, and forget the oldest."""
        async with self._database.transaction() as connection:
            await connection.executemany(_SQL["add"], [msgspec.structs.astuple(row) for row in rows])
            await connection.execute(_SQL["forget"], MOST_KEPT)

    async def acknowledged(self, studio: str, revision: int, at: str) -> None:
        """What the studio was told up to that revision is executed."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["acknowledged"], at, studio, revision)

    async def exchanged(self, entry: str | None, studio: str | None, limit: int) -> Sequence[Exchanged]:
        """The newest first."""
        rows = await self._database.fetch(_SQL["exchanged"], entry or "", studio or "", limit)
        return [msgspec.convert(dict(zip(Exchanged.__struct_fields__, row, strict=True)), Exchanged) for row in rows]
