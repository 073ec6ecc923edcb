"""The schema of one store on PostgreSQL: numbered migrations, each in a transaction, one process at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from universal_registry.kernel.errors import Conflict, NewerStore
from universal_registry.storage.ddl import quoted
from universal_registry.storage.postgres import PgConnection
from universal_registry.storage.sqlfiles import Migration, load_migrations

Prepare = Callable[[PgConnection], Awaitable[None]]

OLDEST_SERVER = 13
_LOCK = 0x75726567  # one advisory lock for all stores: two daemons that start together take turns


async def bring_up(
    connection: PgConnection, store: str, place: str, *, read_only: bool, prepare: Prepare | None
) -> None:
    """Make the schema `store`, or bring it up to date; then `prepare` runs in a transaction, under the same lock.

    Raises NewerStore for a schema from a later program; Conflict for a server that is too old or not of UTF-8, and
    for a schema that is not up to date when `read_only`.
    """
    await check_server(connection, place)
    if read_only:
        if missing := await missing_steps(connection, store, place):
            last, newest = missing[0].number - 1, missing[-1].number
            raise Conflict(f"{place} has schema {store} {last}, not yet {newest}", hint="run: ureg init")
        return
    async with turn(connection):
        for step in await missing_steps(connection, store, place):
            await apply_step(connection, store, step)
        if prepare is not None:
            async with connection.transaction():
                await prepare(connection)


async def missing_steps(connection: PgConnection, store: str, place: str) -> tuple[Migration, ...]:
    """The migrations that were not run yet, in order. Raises NewerStore for a schema from a later program."""
    steps = load_migrations(store, "postgres")
    version = await _version(connection, store)
    if version > len(steps):
        raise NewerStore(
            f"{place} has schema {store} {version}; this program knows up to {len(steps)}",
            hint="start the newer universal-registry that wrote it",
        )
    return steps[version:]


async def apply_step(connection: PgConnection, store: str, step: Migration) -> None:
    """Run one migration and write down that it was, unless it was: all in one transaction."""
    async with connection.transaction():
        if await _version(connection, store) >= step.number:
            return
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(store)}")
        await connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(store)}.migrations (number integer PRIMARY KEY, name text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        await connection.execute(step.sql)
        await connection.execute(
            f"INSERT INTO {quoted(store)}.migrations (number, name) VALUES ($1, $2)", step.number, step.name
        )


@asynccontextmanager
async def turn(connection: PgConnection) -> AsyncIterator[None]:
    """Nobody else makes or opens the stores meanwhile, but to read. The lock is the session's, not a transaction's: one
    that begins after it sees all that those before us made."""
    await connection.execute("SET lock_timeout = '60s'")
    await connection.execute(f"SELECT pg_advisory_lock({_LOCK})")
    await connection.execute("RESET lock_timeout")
    try:
        yield
    finally:
        await connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")


async def check_server(connection: PgConnection, place: str) -> None:
    """Raises Conflict for a server that cannot hold a registry."""
    (row,) = await connection.fetch(
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding')"
    )
    if row[0] < OLDEST_SERVER:
        raise Conflict(f"{place} is PostgreSQL {row[0]}", hint=f"PostgreSQL {OLDEST_SERVER} or newer is needed")
    if row[1] != "UTF8":
        raise Conflict(f"{place} keeps text as {row[1]}", hint="make the database with: createdb -E UTF8 -T template0")


async def _version(connection: PgConnection, store: str) -> int:
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{quoted(store)}.migrations"):
        return 0
    found = await connection.fetchval(f"SELECT coalesce(max(number), 0) FROM {quoted(store)}.migrations")
    assert isinstance(found, int)
    return found
