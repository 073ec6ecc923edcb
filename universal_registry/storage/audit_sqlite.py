"""The audit trail of one store on SQLite, in the store's own file."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson

from universal_registry.log.audit import Asked, AuditHead, AuditRow, Deed, LineSeen, chained
from universal_registry.storage.database import Database
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("sqlite/audit.sql")


class SqliteTrail:
    """The Trail of the store whose file this is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, deeds: Sequence[Deed]) -> None:
        """Write deeds down that belong to no other transaction, durably."""
        if deeds:
            async with self._database.transaction():
                append(self._database, deeds)

    async def head(self) -> AuditHead:
        """The end of the trail."""
        return _head(self._database.read(_SQL["head"]))

    async def after(self, number: int, limit: int) -> Sequence[AuditRow]:
        """Rows after a number, in order."""
        return await self._database.scan(lambda read: [AuditRow(*row) for row in read(_SQL["after"], (number, limit))])

    async def one(self, number: int) -> AuditRow | None:
        """The row of a number, if there is one."""
        rows = self._database.read(_SQL["one"], (number,))
        return AuditRow(*rows[0]) if rows else None

    async def newest(self, asked: Asked) -> Sequence[AuditRow]:
        """The newest rows that fit, newest first."""
        where = msgspec.structs.asdict(asked)
        return await self._database.scan(lambda read: [AuditRow(*row) for row in read(_SQL["newest"], where)])

    async def newest_lines(self, asked: Asked) -> Sequence[LineSeen]:
        """The newest lines of the change log that fit, newest first. Only the registry store has them."""
        where = msgspec.structs.asdict(asked)
        return await self._database.scan(lambda read: [LineSeen(*row) for row in read(_SQL["newest_lines"], where)])


def append(database: Database, deeds: Sequence[Deed]) -> None:
    """Write deeds down inside the transaction that is open. What is there already is not written again."""
    if not deeds:
        return
    ids = orjson.dumps([each.id for each in deeds]).decode()
    known = {each for (each,) in database.execute(_SQL["known"], (ids,))}
    head = _head(database.execute(_SQL["head"]))
    rows = chained(head, [each for each in deeds if each.id not in known])
    database.executemany(_SQL["append"], [msgspec.structs.astuple(row) for row in rows])


def _head(rows: Sequence[Sequence[object]]) -> AuditHead:
    return AuditHead(*rows[0]) if rows else AuditHead()  # type: ignore[arg-type] # a number and a hash
