"""The audit trail of one store on PostgreSQL, in the store's own schema. Any number of daemons append to it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from universal_registry.log.audit import Asked, AuditHead, AuditRow, Deed, LineSeen, chained
from universal_registry.storage.postgres import PgConnection, PgDatabase
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("postgres/audit.sql")


class PgTrail:
    """The Trail of the store whose schema this is."""

    def __init__(self, database: PgDatabase, store: str) -> None:
        self._database = database
        self._store = store

    async def record(self, deeds: Sequence[Deed]) -> None:
        """Write deeds down that belong to no other transaction, durably."""
        if deeds:
            async with self._database.transaction() as connection:
                await append(connection, self._store, deeds)

    async def head(self) -> AuditHead:
        """The end of the trail."""
        rows = await self._database.fetch(_SQL["head"])
        return AuditHead(*rows[0]) if rows else AuditHead()

    async def after(self, number: int, limit: int) -> Sequence[AuditRow]:
        """Rows after a number, in order."""
        return [AuditRow(*row) for row in await self._database.fetch(_SQL["after"], number, limit)]

    async def one(self, number: int) -> AuditRow | None:
        """The row of a number, if there is one."""
        rows = await self._database.fetch(_SQL["one"], number)
        return AuditRow(*rows[0]) if rows else None

    async def newest(self, asked: Asked) -> Sequence[AuditRow]:
        """The newest rows that fit, newest first."""
        rows = await self._database.fetch(_SQL["newest"], *msgspec.structs.astuple(asked))
        return [AuditRow(*row) for row in rows]

    async def newest_lines(self, asked: Asked) -> Sequence[LineSeen]:
        """The newest lines of the change log that fit, newest first. Only the registry store has them."""
        rows = await self._database.fetch(_SQL["newest_lines"], *msgspec.structs.astuple(asked))
        return [LineSeen(*row) for row in rows]


async def append(connection: PgConnection, store: str, deeds: Sequence[Deed]) -> None:
    """Write deeds down inside a transaction, as the last thing in it: other daemons wait from here to its end.

    What is there already is not written again.
    """
    if not deeds:
        return
    await connection.fetchval(_SQL["turn"], store)
    known = {row[0] for row in await connection.fetch(_SQL["known"], [each.id for each in deeds])}
    last = await connection.fetchrow(_SQL["head"])
    head = AuditHead(*last) if last is not None else AuditHead()
    rows = chained(head, [each for each in deeds if each.id not in known])
    columns = [list(column) for column in zip(*map(msgspec.structs.astuple, rows), strict=True)]
    if columns:
        await connection.execute(_SQL["append"], *columns)
