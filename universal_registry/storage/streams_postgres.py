"""What streams have carried, in the propagation store on PostgreSQL: of all daemons together."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.propagation.streams import Carried
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.sqlfiles import load_queries

_SQL = load_queries("postgres/streams.sql")


class PgStreams:
    """The StreamStore of one schema."""

    def __init__(self, database: PgDatabase) -> None:
        self._database = database

    async def add_carried(self, carried: Sequence[Carried], at: str) -> None:
        """Add it to the totals, in one commit. Rows in order, so that two daemons do not wait for each other."""
        rows = sorted((each.stream, each.direction, each.messages, each.size, each.latency_ms, at) for each in carried)
        async with self._database.transaction() as connection:
            await connection.executemany(_SQL["add_carried"], rows)
            await connection.execute(_SQL["count_messages"], sum(each.messages for each in carried))

    async def carried(self) -> Sequence[Carried]:
        """All totals, by stream and direction."""
        return [
            Carried(
                stream=stream, direction=direction, messages=messages, size=size, latency_ms=latency, last_update=at
            )
            for stream, direction, messages, size, latency, at in await self._database.fetch(_SQL["carried"])
        ]
