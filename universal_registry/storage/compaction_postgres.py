"""Compaction of the change log on PostgreSQL. Several daemons may be at it: each step is one daemon's."""

from __future__ import annotations

from universal_registry.log.audit import Deed
from universal_registry.log.horizon import Horizon
from universal_registry.registry.compaction import Figures, Size, Step
from universal_registry.storage.audit_postgres import append
from universal_registry.storage.registry_postgres import PostgresRegistry, position_of
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("postgres/compaction.sql")
_STORE = "registry"


class PgHistory:
    """HistoryStore over the schema of a registry."""

    def __init__(self, registry: PostgresRegistry) -> None:
        self._database = registry.database

    async def born(self, after: int, upto: int) -> int:
        """By the lines between two revisions, how many records more there were then."""
        where = (position_of(after + 1, 0) - 1, position_of(upto + 1, 0))
        async with self._database.long_snapshot() as connection:
            return int(await connection.fetchval(_SQL["born"], *where))

    async def declare(self, before: Horizon, after: Horizon, told: Deed) -> bool:
        """Move the horizon, if it is still where it was."""
        async with self._database.transaction() as connection:
            await connection.fetchrow(_SQL["progress"])
            row = await connection.fetchrow(_SQL["horizon"])
            if tuple(row) != (before.values, before.lines, before.hash, before.living):
                return False
            await connection.execute(_SQL["declare"], after.values, after.lines, after.hash, after.living)
            await append(connection, _STORE, [told])
        return True

    async def drop_values(self, limit: int) -> Step:
        """One step."""
        return await self._step("drop_values", limit)

    async def remove_lines(self, limit: int) -> Step:
        """One step."""
        return await self._step("remove_lines", limit)

    async def _step(self, what: str, limit: int) -> Step:
        async with self._database.transaction() as connection:
            values, lines, dropped, removed = await connection.fetchrow(_SQL["progress"])
            upto, done, mark = (
                (values, dropped, "dropped_to") if what == "drop_values" else (lines, removed, "removed_to")
            )
            last, seen = await connection.fetchrow(_SQL["last"], done, position_of(upto + 1, 0), limit)
            if not seen:
                return Step(0, more=False)
            await connection.execute(_SQL["write"])
            gone = int(await connection.fetchval(_SQL[what], done, last))
            await connection.execute(_SQL[mark], last)
        return Step(gone, more=seen == limit)

    async def foresee(self, values: int, lines: int) -> Figures:
        """Reads all lines that would be looked at, on a connection of its own."""
        async with self._database.long_snapshot() as connection:
            row = await connection.fetchrow("SELECT dropped_to, removed_to FROM log_horizon")
            of_values, of_lines = (row[0], position_of(values + 1, 0)), (row[1], position_of(lines + 1, 0))
            count, size = await connection.fetchrow(_SQL["values_foreseen"], *of_values)
            gone = await connection.fetchval(_SQL["lines_foreseen"], *of_lines)
        return Figures(values=count, bytes=size, lines=gone)

    async def size(self) -> Size:
        """Of the log. What is free in it the server fills again (autovacuum)."""
        async with self._database.long_snapshot() as connection:
            lines, size = await connection.fetchrow(_SQL["size"])
        return Size(lines=lines, bytes=size, free=None)

    async def give_back(self) -> bool:
        """The server does."""
        return False
