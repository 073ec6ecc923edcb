"""Both schemas of a PostgreSQL database as a source of rows, and as a place to put them (copying.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from universal_registry.kernel.errors import Conflict, Corrupt, NewerStore
from universal_registry.kernel.settings import PostgresSettings
from universal_registry.kernel.world import World
from universal_registry.registry.catalogue import Catalogue
from universal_registry.storage.copying import STORES, Batch, Point, carried, check_columns
from universal_registry.storage.ddl import quoted
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.postgres_errors import translated
from universal_registry.storage.postgres_schema import apply_step, check_server, turn
from universal_registry.storage.registry_postgres import make_kinds
from universal_registry.storage.sqlfiles import load_migrations, load_queries

ENGINE = "postgres"
_SQL = load_queries("postgres/copying.sql")
_PREFETCH = 100


class _Stores:
    """A connection inside a transaction."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def columns(self) -> dict[str, dict[str, str]]:
        """By table (`store.name`) that is copied: the columns that are stored, not computed, and their types."""
        found: dict[str, dict[str, str]] = {}
        for table, column, kind in await self.connection.fetch(_SQL["columns"], list(STORES)):
            found.setdefault(table, {})[column] = kind
        return {table: found[table] for table in carried(ENGINE, list(found))}

    async def batches(self) -> AsyncIterator[Batch]:
        for table, columns in (await self.columns()).items():
            what = ", ".join(map(quoted, columns))
            order = " ORDER BY place" if table == "propagation.lanes" else ""
            sql = f"SELECT {what} FROM {_named(table)}{order}"
            some: list[Any] = []
            told = False
            async for row in self.connection.cursor(sql, prefetch=_PREFETCH):
                some.append(tuple(int(value) if isinstance(value, bool) else value for value in row))
                if len(some) == _PREFETCH:
                    yield Batch(table, tuple(columns), some)
                    some, told = [], True
            if some or not told:
                yield Batch(table, tuple(columns), some)


def _named(table: str) -> str:
    store, _, name = table.partition(".")
    return f"{quoted(store)}.{quoted(name)}"


class PostgresSource(_Stores):
    """Reads both schemas in one snapshot, also while daemons write them."""

    def __init__(self, connection: Any, point: Point) -> None:
        super().__init__(connection)
        self.point = point


@asynccontextmanager
async def postgres_source(settings: PostgresSettings, world: World) -> AsyncIterator[PostgresSource]:
    """Both schemas as of one moment. Raises StorageUnavailable, Conflict."""
    database = PgDatabase(settings, "registry", world, read_only=True, size=1)
    async with database.long_snapshot() as connection:
        yield PostgresSource(connection, await _point(connection))


async def _point(connection: Any) -> Point:
    revision, chained, incarnation, key = await connection.fetchrow(_SQL["point"])
    has_keys = await _is_there(connection, "registry", "sealing_keys")  # not in a store of an older version
    schema = {store: await connection.fetchval(_SQL["version"].replace("registry", store)) for store in STORES}
    return Point(
        engine=ENGINE,
        incarnation=incarnation,
        revision=revision,
        hash=chained.hex(),
        schema=schema,
        key_fingerprint=key,
        keys=tuple(row[0] for row in await connection.fetch(_SQL["keys"])) if has_keys else (),
    )


class PostgresSink(_Stores):
    """Two new schemas."""

    def __init__(self, connection: Any, known: dict[str, dict[str, str]]) -> None:
        super().__init__(connection)
        self._known = known

    async def take(self, batch: Batch) -> None:
        columns = self._known.get(batch.table)
        if columns is None:
            if batch.rows:
                raise Corrupt(f"there is no table {batch.table} here", hint="use the version that wrote it")
            return
        written = check_columns(batch.table, batch.columns, columns)
        places = [(batch.columns.index(column), columns[column] == "boolean") for column in written]
        rows = [tuple(bool(row[at]) if truth else row[at] for at, truth in places) for row in batch.rows]
        store, _, name = batch.table.partition(".")
        await self.connection.copy_records_to_table(name, schema_name=store, columns=written, records=rows)

    async def name(self, point: Point, incarnation: str) -> None:
        await self.connection.execute("SELECT set_config('ureg.write', 'on', true)")
        await self.connection.execute(_SQL["set_head"], point.revision, bytes.fromhex(point.hash), incarnation)
        await self.connection.execute(_SQL["fill_namespaces"])
        await self.connection.execute(_SQL["free_lanes"])
        for table, column in await self.connection.fetch(_SQL["identities"], list(STORES)):
            await self.connection.execute(
                f"SELECT setval(pg_get_serial_sequence($1, $2), greatest(max({quoted(column)}), 1), "
                f"max({quoted(column)}) IS NOT NULL) FROM {_named(table)}",
                _named(table),
                column,
            )
        if incarnation != point.incarnation:
            await self.connection.execute(_SQL["follow_restored"], point.incarnation, incarnation)


class PostgresSchemas:
    """Both schemas of a database. What is there must be empty, or goes aside under a name with `aside` at its end."""

    def __init__(self, settings: PostgresSettings, catalogue: Catalogue, world: World, *, aside: str = "") -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._world = world
        self._aside = aside

    @asynccontextmanager
    async def begin(self, point: Point) -> AsyncIterator[PostgresSink]:
        """As Sinks: schemas, rows and all in one transaction. Raises Conflict for a database that is in use, or holds a
        registry already; StorageUnavailable."""
        database = PgDatabase(self._settings, "registry", self._world, read_only=False, size=1)
        connection = await database.alone()
        try:
            with translated(database.place):
                await check_server(connection, database.place)
                await connection.execute("SET idle_in_transaction_session_timeout = '300s'")
                # Who opens the stores to write waits for its turn: nobody writes into schemas that go aside.
                async with turn(connection), connection.transaction():
                    await self._clear(connection, database.place)
                    for store in ("registry", "propagation"):
                        await self._make(connection, store, point)
                    sink = await _emptied(connection)
                    yield sink
                    await _triggers(sink, "ENABLE")
        finally:
            await connection.close()

    async def _clear(self, connection: Any, place: str) -> None:
        if others := await connection.fetchval(_SQL["others"]):
            raise Conflict(
                f"{place} is in use by {others} other connections of a registry",
                hint="stop the daemons that use it: ureg down",
            )
        present = {row[0] for row in await connection.fetch(_SQL["schemas"], list(STORES))}
        for store in sorted(present):
            if not await _is_ours(connection, store):
                raise Conflict(
                    f"schema {store} of {place} is not of a registry: something else is kept there",
                    hint="use a database of its own",
                )
        full = [store for store in STORES if store in present and await _holds_something(connection, store)]
        if full and not self._aside:
            raise Conflict(
                f"{place} holds a registry already", hint="with --replace it goes aside; or use an empty database"
            )
        for store in sorted(present):
            if full:
                await connection.execute(f"ALTER SCHEMA {quoted(store)} RENAME TO {quoted(store + self._aside)}")
            else:
                await connection.execute(f"DROP SCHEMA {quoted(store)} CASCADE")

    async def _make(self, connection: Any, store: str, point: Point) -> None:
        """The schema that the rows are of."""
        steps = load_migrations(store, ENGINE)
        wanted = point.schema[store] if point.engine == ENGINE else len(steps)
        if wanted > len(steps):
            raise NewerStore(f"this has schema {store} {wanted}; this program knows up to {len(steps)}")
        await connection.execute(f"SET LOCAL search_path = {quoted(store)}")
        for step in steps[:wanted]:
            await apply_step(connection, store, step)
        if store == "registry":
            await make_kinds(connection, self._catalogue)


_TELLING = {"registry": ("changes", "tokens", "consumers"), "propagation": ("lanes", "sessions")}
"""Tables that are empty as long as nobody has done anything with a registry."""


async def _is_ours(connection: Any, store: str) -> bool:
    """Whether our migrations made the schema, or nothing is in it."""
    return await _is_there(connection, store, "migrations") or not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = $1::regnamespace)", quoted(store)
    )


async def _holds_something(connection: Any, store: str) -> bool:
    for table in _TELLING[store]:
        if await _is_there(connection, store, table) and await connection.fetchval(
            f"SELECT EXISTS (SELECT FROM {quoted(store)}.{table})"
        ):
            return True
    return False


async def _is_there(connection: Any, store: str, table: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{quoted(store)}.{table}"))


async def _emptied(connection: Any) -> PostgresSink:
    """Some tables begin with rows. Rules that hold whoever writes do not for rows that have obeyed them already."""
    sink = PostgresSink(connection, await _Stores(connection).columns())
    await _triggers(sink, "DISABLE")
    for table in reversed(list(await sink.columns())):
        await connection.execute(f"DELETE FROM {_named(table)}")
    return sink


async def _triggers(sink: PostgresSink, word: str) -> None:
    for table in await sink.columns():
        await sink.connection.execute(f"ALTER TABLE {_named(table)} {word} TRIGGER USER")
