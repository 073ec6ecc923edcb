"""The two stores of a registry, on SQLite or on PostgreSQL: opened together, closed together. Adapters are picked here.

Each engine's driver is imported when it is asked for, so that nobody pays for the other one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from universal_registry.kernel.errors import Conflict
from universal_registry.kernel.settings import Places, PostgresSettings, Settings
from universal_registry.kernel.world import World
from universal_registry.observe.audit import PROPAGATION, REGISTRY, Trail
from universal_registry.observe.health import file_taken_away
from universal_registry.observe.logs import Log
from universal_registry.propagation.ports import LaneCommands, LaneQueries, LaneStore, SessionStore
from universal_registry.propagation.streams import StreamStore
from universal_registry.propagation.studio.ports import SyncLog
from universal_registry.propagation.views.status import MADE_ANEW
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.compaction import HistoryStore
from universal_registry.registry.consumers import ConsumerStore
from universal_registry.registry.key_check import SealedFacts
from universal_registry.registry.key_state import KeyStore
from universal_registry.registry.ports import LogReader, RecordReader
from universal_registry.registry.tokens import TokenStore
from universal_registry.storage.sync_rows import SyncReads
from universal_registry.storage.writer import BatchStore

SQLITE, POSTGRESQL = "sqlite", "postgresql"


class Registry(RecordReader, LogReader, BatchStore, SyncReads, Protocol):
    """The registry store."""

    def meta(self, key: str) -> str | None:
        """One fact about the store (`incarnation`, `key_fingerprint`, `fingerprint_key` ...)."""
        ...

    async def claim_meta(self, facts: Mapping[str, str]) -> None:
        """Record, durably, those of the facts that nobody has recorded yet; `meta` then says what holds."""
        ...


class Lanes(LaneStore, LaneQueries, LaneCommands, SessionStore, Protocol):
    """The propagation store."""


class Keys(KeyStore, SealedFacts, Protocol):
    """The keys of the registry store, and what is sealed in it beside records and log."""


class Others(Protocol):
    """Whoever else writes the same stores."""

    async def look(self) -> None:
        """See whether they did. To be called every second. Never raises for a database that is gone."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Opened stores. `trails`: the audit of each. `troubles`: each says in one line why a store cannot be used now, or
    nothing.

    `watch` makes what notices the commits of other processes; None where there can be none. `opens_links`: whether it
    is this of several daemons that does; None where there is one.
    """

    engine: str
    registry: Registry
    lanes: Lanes
    keys: Keys
    history: HistoryStore
    tokens: TokenStore
    consumers: ConsumerStore
    streams: StreamStore
    studio: SyncLog
    trails: Mapping[str, Trail]
    troubles: tuple[Callable[[], str], ...]
    watch: Callable[[Callable[[], None]], Others] | None = None
    opens_links: Callable[[], Awaitable[bool]] | None = None


async def open_stores(
    settings: Settings, catalogue: Catalogue, world: World, stack: AsyncExitStack, *, read_only: bool
) -> Stores:
    """Open both; `stack` closes them. Raises NewerStore, Conflict, Corrupt, ReadOnlyStore, StorageUnavailable/Full."""
    if settings.database is not None:
        stores = await _postgres(settings, settings.database, catalogue, world, stack, read_only=read_only)
    else:
        stores = _sqlite(settings, catalogue, world, stack, read_only=read_only)
    if not read_only:
        revision = (await stores.registry.head()).revision
        if await stores.lanes.begin(revision, world.now()) and revision:
            Log("stores").warning("the propagation store was missing", hint=MADE_ANEW)
    return stores


def _sqlite(
    settings: Settings, catalogue: Catalogue, world: World, stack: AsyncExitStack, *, read_only: bool
) -> Stores:
    from universal_registry.storage.audit_sqlite import SqliteTrail
    from universal_registry.storage.compaction_sqlite import SqliteHistory
    from universal_registry.storage.consumers_sqlite import SqliteConsumers
    from universal_registry.storage.database import Database
    from universal_registry.storage.keys_sqlite import SqliteKeys
    from universal_registry.storage.lanes_sqlite import SqliteLanes
    from universal_registry.storage.registry_sqlite import SqliteRegistry
    from universal_registry.storage.streams_sqlite import SqliteStreams
    from universal_registry.storage.studio_sqlite import SqliteStudio
    from universal_registry.storage.tokens_sqlite import SqliteTokens

    places = Places(settings.home)
    if not read_only:
        _refuse_half_a_registry(places)
    registry = SqliteRegistry.open(places.registry_db, catalogue, world, read_only=read_only)
    stack.callback(registry.database.close)
    database = Database.open(places.propagation_db, "propagation", read_only=read_only)
    stack.callback(database.close)
    files = (registry.database, database)
    return Stores(
        engine=SQLITE,
        registry=registry,
        lanes=SqliteLanes(database, retry=settings.retry),
        keys=SqliteKeys(registry, catalogue),
        history=SqliteHistory(registry),
        tokens=SqliteTokens(registry.database),
        consumers=SqliteConsumers(registry.database),
        streams=SqliteStreams(database),
        studio=SqliteStudio(database),
        trails={REGISTRY: SqliteTrail(registry.database), PROPAGATION: SqliteTrail(database)},
        troubles=(
            *(file_taken_away(file.path) for file in files),
            *(lambda file=file: file.broken or "" for file in files),
        ),
    )


def _refuse_half_a_registry(places: Places) -> None:
    """A propagation store that was in use, beside an empty place for its registry: somebody has lost a file, or all of
    it was moved. A new registry there would be taken for the old one, and what was still to be sent thrown away."""
    from universal_registry.storage.database import Database
    from universal_registry.storage.home import none_here
    from universal_registry.storage.replacing import half_moved, holds, moved_aside

    if half_moved(places) or moved_aside(places):
        gone = none_here(places)
        raise Conflict(gone.message, hint=gone.hint)
    if holds(places.registry_db) or not holds(places.propagation_db):
        return
    database = Database.open(places.propagation_db, "propagation", read_only=True)
    try:
        ((lanes,),) = database.read("SELECT COUNT(*) FROM lanes")
    finally:
        database.close()
    if lanes:
        raise Conflict(
            f"{places.registry_db} is missing or empty, but {places.propagation_db.name} belongs to a registry",
            hint="restore it from a backup; to begin anew, remove both",
        )


async def _refuse_a_second_registry(places: Places, where: PostgresSettings, world: World) -> None:
    """The home's registry is in its files, and the database holds none: an empty one there would be taken for it."""
    from universal_registry.storage.replacing import holds
    from universal_registry.storage.sealed_with import sealed_with_on_server

    if holds(places.registry_db) and await sealed_with_on_server(where, world) is None:
        raise Conflict(
            f"the registry of {places.home} is in its SQLite files, and the database that the settings name holds none",
            hint="ureg db to-postgres moves it there; to begin anew, put .universal_registry.db and "
            ".registry_propagation.db elsewhere, with what is beside them",
        )


async def _postgres(
    settings: Settings,
    where: PostgresSettings,
    catalogue: Catalogue,
    world: World,
    stack: AsyncExitStack,
    *,
    read_only: bool,
) -> Stores:
    from universal_registry.storage.audit_postgres import PgTrail
    from universal_registry.storage.compaction_postgres import PgHistory
    from universal_registry.storage.consumers_postgres import PgConsumers
    from universal_registry.storage.keys_postgres import PgKeys
    from universal_registry.storage.lanes_postgres import PgLanes
    from universal_registry.storage.peer_lease import PgLease
    from universal_registry.storage.postgres import PgDatabase
    from universal_registry.storage.postgres_watch import CommitWatch
    from universal_registry.storage.registry_postgres import PostgresRegistry
    from universal_registry.storage.streams_postgres import PgStreams
    from universal_registry.storage.studio_postgres import PgStudio
    from universal_registry.storage.tokens_postgres import PgTokens

    await _refuse_a_second_registry(Places(settings.home), where, world)
    registry = await PostgresRegistry.open(where, catalogue, world, read_only=read_only)
    stack.push_async_callback(registry.database.close)
    database = await PgDatabase.open(where, "propagation", world, read_only=read_only)
    stack.push_async_callback(database.close)
    lease = PgLease(database)
    stack.callback(lease.close)
    return Stores(
        engine=POSTGRESQL,
        registry=registry,
        lanes=PgLanes(database, world, retry=settings.retry),
        keys=PgKeys(registry, catalogue),
        history=PgHistory(registry),
        tokens=PgTokens(registry.database),
        consumers=PgConsumers(registry.database),
        streams=PgStreams(database),
        studio=PgStudio(database),
        trails={name: PgTrail(each, name) for name, each in ((REGISTRY, registry.database), (PROPAGATION, database))},
        troubles=(lambda: registry.database.broken or "", lambda: database.broken or ""),
        watch=lambda wake: CommitWatch(registry, wake),
        opens_links=lease.holds,
    )
