"""The queries about versions on PostgreSQL: one round trip each, their rows as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.log.audit import Deed
from universal_registry.storage.audit_postgres import append
from universal_registry.storage.postgres import PgConnection
from universal_registry.storage.sqlfiles import load_queries

_STORE = "registry"
_SQL = load_queries("postgres/sync.sql")


class PgSyncTables:
    """SyncTables in the transaction of a connection."""

    def __init__(self, connection: PgConnection) -> None:
        self._connection = connection

    async def ask(self, name: str, *params: Any) -> Sequence[Sequence[Any]]:
        return await self._connection.fetch(_SQL[name], *params)

    async def ask_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
        return await self._connection.fetch(_SQL[name], *_columns(params)) if params else []

    async def run_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> None:
        if params:
            await self._connection.execute(_SQL[name], *_columns(params))

    async def record(self, deeds: Sequence[Deed]) -> None:
        await append(self._connection, _STORE, deeds)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
