"""One schema of a PostgreSQL database: a pool that reconnects, transactions, snapshots, errors.

Imported only when PostgreSQL is asked for, so that nobody else pays for the driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

import asyncpg

from universal_registry.kernel.errors import ReadOnlyStore, StorageUnavailable
from universal_registry.kernel.settings import PostgresSettings
from universal_registry.kernel.world import World
from universal_registry.storage.fair_pool import FairPool
from universal_registry.storage.postgres_errors import NO_CONNECTION, TRIED_AGAIN, lost, translate, translated
from universal_registry.storage.threads import to_the_end

PATIENCE = 5.0
"""Seconds for which a statement waits for a server that has just gone; one that is gone for longer is said at once."""

_FIRST_WAIT, _LONGEST_WAIT = 0.02, 0.5
_CONNECT_SECONDS = 5.0
_STATEMENT_SECONDS = 60.0
_LONG_READ_SECONDS = 300
_SESSION = {
    "TimeZone": "UTC",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
    "jit": "off",  # compiling costs more than any statement of ours
}


class PgConnection(Protocol):
    """What is used of a connection. Rows behave as tuples."""

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]: ...

    async def fetchrow(self, sql: str, *args: Any) -> Any: ...

    async def fetchval(self, sql: str, *args: Any) -> Any: ...

    async def execute(self, sql: str, *args: Any) -> str:
        """Without arguments, `sql` may hold several statements."""
        ...

    async def executemany(self, sql: str, args: Sequence[Sequence[Any]]) -> None: ...

    def transaction(self) -> AbstractAsyncContextManager[Any]: ...


Prepare = Callable[[PgConnection], Awaitable[None]]


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A session in which nothing is ever set but inside a transaction: nothing to reset when it goes back."""

    def get_reset_query(self) -> str:
        return ""


class PgDatabase:
    """A schema (`registry` or `propagation`, first in the search path) with a pool of connections of its own.

    Every statement waits up to PATIENCE for a server that restarts, and raises StorageUnavailable then.
    """

    def __init__(self, settings: PostgresSettings, store: str, world: World, *, read_only: bool, size: int) -> None:
        self.place = f"PostgreSQL database {settings.name!r} on {settings.host}"
        self.read_only = read_only
        self._settings = settings
        self._store = store
        self._world = world
        self._size = size
        self._pool: FairPool
        self._gone_since: float | None = None
        self._trouble = ""
        self._pids: set[int] = set()

    @classmethod
    async def open(
        cls,
        settings: PostgresSettings,
        store: str,
        world: World,
        *,
        read_only: bool = False,
        prepare: Prepare | None = None,
        size: int = 4,
    ) -> PgDatabase:
        """Connect and bring the schema up to date; then `prepare` runs, in a transaction, in one process at a time.

        Raises StorageUnavailable (not there, or does not let us in), NewerStore, Conflict, ReadOnlyStore.
        """
        from universal_registry.storage.postgres_schema import bring_up

        database = cls(settings, store, world, read_only=read_only, size=size)
        pool = await database._new_pool()
        database._pool = FairPool(pool, size, _CONNECT_SECONDS)
        try:
            with translated(database.place):
                async with pool.acquire() as connection:
                    await bring_up(connection, store, database.place, read_only=read_only, prepare=prepare)
        except BaseException as error:
            database._pool.terminate()
            if isinstance(error, StorageUnavailable) and error.hint == TRIED_AGAIN:
                error.hint = "does the server run? check REGISTRY_DB_HOST and REGISTRY_DB_PORT"
            raise
        return database

    async def _new_pool(self) -> Any:
        return await asyncpg.create_pool(
            min_size=0,  # with a floor, the driver keeps it by itself, and logs a trace for each attempt
            max_size=self._size,
            connection_class=_Connection,
            init=self._made,
            **self._connect_arguments(),
        )

    async def _made(self, connection: Any) -> None:
        """A new connection of the pool. An acknowledgement means fsynced, whatever is the server's default."""
        pid = connection.get_server_pid()
        self._pids.add(pid)
        connection.add_termination_listener(lambda _: self._pids.discard(pid))
        await connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )

    def _connect_arguments(self) -> dict[str, Any]:
        session = {"application_name": f"universal-registry {self._store}", "search_path": f'"{self._store}"'}
        if self.read_only:
            session["default_transaction_read_only"] = "on"
        settings = self._settings
        return {
            "host": settings.host,
            "port": settings.port,
            "user": settings.user,
            "password": settings.password,
            "database": settings.name,
            "timeout": _CONNECT_SECONDS,
            "command_timeout": _STATEMENT_SECONDS,
            "server_settings": {**_SESSION, **session},
        }

    # --- statements ----------------------------------------------------------------------------------------------

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]:
        """Run one statement: all rows. If its connection is lost meanwhile, it is run once more, on a live one."""
        connection = await self._acquire()
        for again in (False, True):
            try:
                rows: Sequence[Any] = await connection.fetch(sql, *args)
                return rows
            except (asyncpg.PostgresError, *NO_CONNECTION) as error:
                ended = self._ended(connection, error)
                if again or not ended or isinstance(error, asyncio.TimeoutError):
                    raise translate(error, self.place) from error
            finally:
                await self._release(connection)
            connection = await self._live(_ping)
        raise AssertionError

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PgConnection]:
        """Every statement in the block sees one committed state. Raises as `transaction`."""
        async with self._transaction(isolation="repeatable_read", readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def long_snapshot(self) -> AsyncIterator[PgConnection]:
        """As `snapshot`, for a reader that may take minutes: on a connection of its own, so that it keeps none away."""
        with translated(self.place):
            connection = await asyncpg.connect(connection_class=_Connection, **self._connect_arguments())
            try:
                await connection.execute(f"SET idle_in_transaction_session_timeout = '{_LONG_READ_SECONDS}s'")
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    yield connection
            finally:
                connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PgConnection]:
        """Everything executed inside is durable when the block ends, or none of it is done. READ COMMITTED.

        Raises StorageUnavailable, StorageFull, StoreLocked, ReadOnlyStore, Conflict. When the connection is lost during
        the commit itself, nobody can say which of the two it is: then `data["in_doubt"]` is true.
        """
        if self.read_only:
            raise ReadOnlyStore(f"{self.place} is open for reading only")
        async with self._transaction() as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, **how: Any) -> AsyncIterator[PgConnection]:
        connection, transaction = await self._begun(how)
        try:
            try:
                with translated(self.place):
                    yield connection
            except BaseException:
                await self._rolled_back(connection, transaction)
                raise
            await self._committed(transaction, in_doubt=not how)
        finally:
            await self._release(connection)

    async def _begun(self, how: dict[str, Any]) -> tuple[Any, Any]:
        """A connection with a transaction."""
        begun: list[Any] = []

        async def begin(connection: Any) -> None:
            begun[:] = [connection.transaction(**how)]
            await begun[0].start()

        return await self._live(begin), begun[0]

    async def _live(self, proof: Callable[[Any], Awaitable[Any]]) -> Any:
        """A connection on which `proof` was run. The dead ones that the pool still holds are dropped on the way."""
        for left in reversed(range(self._size + 2)):
            connection = await self._acquire()
            try:
                await proof(connection)
                return connection
            except BaseException as error:
                ended = self._ended(connection, error)
                await self._release(connection)
                if not isinstance(error, (asyncpg.PostgresError, *NO_CONNECTION)):
                    raise
                if not left or not ended:
                    raise translate(error, self.place) from error
        raise AssertionError

    def _ended(self, connection: Any, error: BaseException) -> bool:
        """Whether the connection was at fault. It is not used again; the pool may hold as many dead ones as it has."""
        if lost(error):
            _end(connection)
        return lost(error)

    async def _committed(self, transaction: Any, *, in_doubt: bool) -> None:
        try:
            await to_the_end(asyncio.get_running_loop().create_task(transaction.commit()))
        except (asyncpg.PostgresError, *NO_CONNECTION) as error:
            known = translate(error, self.place)
            if in_doubt and lost(error):
                known.data["in_doubt"] = True
                known.message += "; whether the last commit was done is not known"
                known.hint = "look before you repeat it"
            raise known from error

    async def _rolled_back(self, connection: Any, transaction: Any) -> None:
        """Undo. A connection that is gone has taken its transaction along; one that does not answer is ended."""
        try:
            if not connection.is_closed():
                await to_the_end(asyncio.get_running_loop().create_task(transaction.rollback()))
        except (asyncpg.PostgresError, *NO_CONNECTION):
            _end(connection)

    # --- connections ---------------------------------------------------------------------------------------------

    async def _acquire(self) -> Any:
        """A live connection, waiting with jitter for a server that has just gone."""
        wait = _FIRST_WAIT
        while True:
            try:
                connection = await self._pool.acquire()
            except (asyncpg.PostgresError, *NO_CONNECTION) as error:
                known = translate(error, self.place)
                if not self._worth_waiting(error):
                    self._trouble = known.message
                    raise known from error
            else:
                self._gone_since, self._trouble = None, ""
                return connection
            await asyncio.sleep(wait * (0.5 + self._world.chance()))
            wait = min(wait * 2, _LONGEST_WAIT)

    def _worth_waiting(self, error: BaseException) -> bool:
        if self._gone_since is None:
            self._gone_since = self._world.monotonic()
        return lost(error) and self._world.monotonic() - self._gone_since < PATIENCE

    async def _release(self, connection: Any) -> None:
        try:
            await self._pool.release(connection)
        except (asyncpg.PostgresError, *NO_CONNECTION):
            _end(connection)

    async def listen(self, channel: str, heard: Callable[[], None]) -> Listening:
        """Call `heard` for each notification that is not of this very pool. Raises StorageUnavailable.

        The connection is one of its own, and is not made anew when it is lost.
        """

        def callback(_connection: object, pid: int, *_: object) -> None:
            if pid not in self._pids:
                heard()

        with translated(self.place):
            connection = await asyncpg.connect(**self._connect_arguments())
            try:
                await connection.add_listener(channel, callback)
            except BaseException:
                connection.terminate()
                raise
        return Listening(connection)

    async def alone(self) -> Any:
        """A connection of its own, which its owner terminates. Raises StorageUnavailable."""
        with translated(self.place):
            return await asyncpg.connect(**self._connect_arguments())

    @property
    def broken(self) -> str | None:
        """Why nothing can be read or written now, as far as the last statement knows."""
        return self._trouble or None

    async def close(self) -> None:
        """Close all connections; one that is in use for longer than a moment is ended."""
        try:
            await asyncio.wait_for(self._pool.close(), _CONNECT_SECONDS)
        except (asyncpg.PostgresError, *NO_CONNECTION):
            self._pool.terminate()


async def _ping(connection: PgConnection) -> None:
    await connection.execute("SELECT 1")


def _end(connection: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool has noticed before us, and taken it back
        connection.terminate()


class Listening:
    """A connection that hears notifications."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def lost(self) -> bool:
        """Whether it hears nothing any more."""
        return bool(self._connection.is_closed())

    def close(self) -> None:
        """Hear no more."""
        self._connection.terminate()
