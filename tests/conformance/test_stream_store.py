"""What streams have carried, on each engine: exact totals, one counter for all, under the documented names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.world import SystemWorld
from universal_registry.observe.streams import Traffic
from universal_registry.propagation.streams import IN, OUT, Carried, StreamStore
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_postgres import PgLanes
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.streams_postgres import PgStreams
from universal_registry.storage.streams_sqlite import SqliteStreams

WORLD = SystemWorld()
NAMED = "SELECT stream_id, direction, message_count, byte_count, latency_ms, last_update FROM {}stream_metrics"


class Opened:
    """`query`: what plain SQL reads."""

    def __init__(self, store: StreamStore, lanes: Any, query: Callable[[str], Any]) -> None:
        self.store = store
        self.lanes = lanes
        self.query = query


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Opened]:
    database = Database.open(folder / "propagation.db", "propagation")

    async def query(sql: str) -> Any:
        return database.read(sql.format(""))

    try:
        yield Opened(SqliteStreams(database), SqliteLanes(database), query)
    finally:
        database.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Opened]:
    database = await PgDatabase.open(pgserver.database_of(folder), "propagation", WORLD)

    async def query(sql: str) -> Any:
        return [tuple(row) for row in await database.fetch(sql.format("propagation."))]

    try:
        yield Opened(PgStreams(database), PgLanes(database, WORLD), query)
    finally:
        await database.close()


ENGINES: dict[str, Callable[[Path], AbstractAsyncContextManager[Opened]]] = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture(params=ENGINES)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    async with ENGINES[request.param](tmp_path) as found:
        yield found


def carried(stream: str, direction: str, messages: int, size: int, latency: float | None = None) -> Carried:
    return Carried(stream=stream, direction=direction, messages=messages, size=size, latency_ms=latency)


async def test_totals_grow_exactly_and_are_read_by_their_names(opened: Opened) -> None:
    assert await opened.store.carried() == []
    for number in range(5):
        rows = [carried("b", IN, 1, 10), carried("a", OUT, number, 2**40, 0.5 + number), carried("\u00e4'", IN, 2, 3)]
        await opened.store.add_carried(rows, f"2026-03-01T12:00:0{number}.000Z")
    at = "2026-03-01T12:00:04.000Z"
    wanted = [("a", OUT, 10, 5 * 2**40, 4.5, at), ("b", IN, 5, 50, None, at), ("\u00e4'", IN, 10, 15, None, at)]
    assert sorted(map(tuple, await opened.query(NAMED))) == sorted(wanted)
    found = [
        (each.stream, each.direction, each.messages, each.size, each.latency_ms, each.last_update)
        for each in await opened.store.carried()
    ]
    assert found == wanted
    assert (await opened.lanes.depth()).counters.messages == 25


async def test_many_at_once_lose_nothing(opened: Opened) -> None:
    rows = [carried(f"s{number}", IN, 1, 1) for number in range(20)]
    await asyncio.gather(*(opened.store.add_carried(rows[::step], "2026-03-01T12:00:00.000Z") for step in (1, -1) * 10))
    assert {each.messages for each in await opened.store.carried()} == {20}
    assert (await opened.lanes.depth()).counters.messages == 400


async def test_what_could_not_be_stored_is_stored_later(opened: Opened) -> None:
    class Failing:
        async def add_carried(self, *_: Any) -> None:
            raise StorageUnavailable("gone")

    traffic = Traffic(opened.store, WORLD)
    traffic.flow("a", OUT).count(3, 30, 2.0)
    store, traffic._store = traffic._store, Failing()  # type: ignore[assignment]
    with pytest.raises(StorageUnavailable):
        await traffic.store()
    traffic.count("a", OUT, 1, 10, 6.0)
    traffic._store = store
    (found,) = await traffic.totals()
    assert (found.messages, found.size, found.latency_ms) == (4, 40, 3.0)
    (again,) = await traffic.totals()
    assert again == found
