"""Moving a registry from its SQLite files to PostgreSQL: verified row by row, and under the name that it had."""

from __future__ import annotations

import msgspec

from universal_registry.care.engines import folder_source, server_sinks
from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.settings import Places, PostgresSettings, Settings
from universal_registry.kernel.world import World
from universal_registry.storage.copying import Point, Summary, compare, summed
from universal_registry.storage.lock import StoreLock
from universal_registry.storage.replacing import MOVED, HalfMoved, half_moved, put_stores_aside
from universal_registry.storage.sealed_with import sealed_with_on_server


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A registry that is on PostgreSQL now. `aside`: where its files are. `again`: it was there already."""

    point: Point
    tables: dict[str, Summary]
    aside: str
    again: bool

    @property
    def rows(self) -> int:
        """In all tables."""
        return sum(table.rows for table in self.tables.values())


async def move_to_postgres(settings: Settings, database: PostgresSettings, world: World) -> Moved:
    """Move the SQLite files of a home into an empty PostgreSQL database, and compare both row by row.

    The history stays the same one: every cursor, lane and consumer goes on from its place. One transaction: whatever
    stops it leaves an empty database and the files as they were. Cut short after that, it is found to be done when it
    is said again. Raises StoreLocked while anybody uses the home, Conflict, Corrupt, StorageUnavailable.
    """
    places = Places(settings.home)
    lock = StoreLock.acquire(places.lock, role="db to-postgres", wait=settings.lock_wait)
    try:
        if half := half_moved(places):
            return await _finished(places, database, world, half)
        ending = f"{MOVED}-{world.now().strftime('%Y%m%dT%H%M%SZ').lower()}"
        async with folder_source(places.home) as source:
            point = source.point
            there = await _point_there(database, world)
            again = there is not None and _same(there, point)
            if again:  # the transaction that was committed had compared it
                tables = await summed(source.batches())
            else:
                async with server_sinks(database, world).begin(point) as sink:
                    async for batch in source.batches():
                        await sink.take(batch)
                    tables = await summed(source.batches())
                    compare(tables, await summed(sink.batches()))
                    await sink.name(point, point.incarnation)
        aside = put_stores_aside(places, HalfMoved(ending, point.incarnation))
        return Moved(point=point, tables=tables, aside=aside, again=again)
    finally:
        lock.release()


async def _finished(places: Places, database: PostgresSettings, world: World, half: HalfMoved) -> Moved:
    """The move was committed: what is left of the files goes aside."""
    from universal_registry.storage.copy_postgres import postgres_source

    point = await _point_there(database, world)
    if point is None or point.incarnation != half.incarnation:
        raise Conflict(
            "the registry of this home was moved to another database than that which the settings name",
            hint="set REGISTRY_DB_HOST and REGISTRY_DB_NAME as they were",
        )
    async with postgres_source(database, world) as source:
        tables = await summed(source.batches())
    return Moved(point=point, tables=tables, aside=put_stores_aside(places, half), again=True)


async def _point_there(database: PostgresSettings, world: World) -> Point | None:
    """Where the registry in the database stands; None: there is none."""
    if await sealed_with_on_server(database, world) is None:
        return None
    from universal_registry.storage.copy_postgres import postgres_source

    async with postgres_source(database, world) as found:
        return found.point


def _same(one: Point, other: Point) -> bool:
    return (one.incarnation, one.revision, one.hash) == (other.incarnation, other.revision, other.hash)
