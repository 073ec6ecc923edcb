"""What streams have carried, in the propagation store on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.propagation.streams import Carried
from universal_registry.storage.database import Database
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("sqlite/streams.sql")


class SqliteStreams:
    """The StreamStore of one file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_carried(self, carried: Sequence[Carried], at: str) -> None:
        """Add it to the totals, in one commit."""
        rows = [(each.stream, each.direction, each.messages, each.size, each.latency_ms, at) for each in carried]
        async with self._database.transaction():
            self._database.executemany(_SQL["add_carried"], rows)
            self._database.execute(_SQL["count_messages"], (sum(each.messages for each in carried),))

    async def carried(self) -> Sequence[Carried]:
        """All totals, by stream and direction."""
        return [
            Carried(
                stream=stream, direction=direction, messages=messages, size=size, latency_ms=latency, last_update=at
            )
            for stream, direction, messages, size, latency, at in self._database.read(_SQL["carried"])
        ]
