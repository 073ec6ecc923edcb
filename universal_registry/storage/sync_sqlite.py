"""The queries about versions on SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from universal_registry.log.audit import Deed
from universal_registry.storage.audit_sqlite import append
from universal_registry.storage.database import Database
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("sqlite/sync.sql")


class SqliteSyncTables:
    """SyncTables in the transaction that is open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, name: str, *params: Any) -> Sequence[Sequence[Any]]:
        return self._database.execute(_SQL[name], params)

    async def ask_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
        return self._database.selectmany(_SQL[name], params)

    async def run_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> None:
        self._database.executemany(_SQL[name], params)

    async def record(self, deeds: Sequence[Deed]) -> None:
        append(self._database, deeds)


class SqliteSyncView:
    """SyncTables over the committed state. Nothing is awaited in here, so a snapshot holds from ask to ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, name: str, *params: Any) -> Sequence[Sequence[Any]]:
        return self._database.read(_SQL[name], params)

    async def ask_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
        return [row for each in params for row in self._database.read(_SQL[name], each)]

    async def run_each(self, name: str, params: Sequence[tuple[Any, ...]]) -> None:
        raise AssertionError(f"{name} with {len(params)} rows is no question")

    async def record(self, deeds: Sequence[Deed]) -> None:
        raise AssertionError(f"{len(deeds)} deeds are no question")
