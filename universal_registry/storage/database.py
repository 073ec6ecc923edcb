"""One SQLite file: connections, transactions whose COMMIT (the fsync) runs in a thread, migrations, errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw

from universal_registry.kernel.errors import (
    Conflict,
    Corrupt,
    NewerStore,
    ReadOnlyStore,
    RegistryError,
    StorageFull,
    StorageUnavailable,
    StoreLocked,
)
from universal_registry.storage.checkpoints import Checkpoints
from universal_registry.storage.held import Held
from universal_registry.storage.own_thread import ByExecutor, OwnThread, Runs
from universal_registry.storage.sqlfiles import load_migrations
from universal_registry.storage.threads import to_the_end

Rows = list[tuple[Any, ...]]
Params = Sequence[Any] | dict[str, Any]
Result = TypeVar("Result")
_BUSY_MS = 5000
_CACHE_KIB = 8192
"""Of the writer: the pages of a group of writes, and the inner nodes of the trees of a million records."""
_ENOUGH_BYTES = 1 << 20
"""Free space with which a write that found none is expected to succeed again."""
_NO_ROOM = 64 << 10
"""With less of it a file system is full: SQLite could not make the file beside a database that its readers share."""
_FSYNC_FAILURES = (
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DIR_FSYNC,
)


class Read(Protocol):
    """Run one reading statement; all rows."""

    def __call__(self, sql: str, params: Params = ()) -> Rows: ...


LongRead = Callable[[Callable[[Read], Any]], Awaitable[Any]]


class Database:
    """A file with one writer (this process) and any number of readers.

    Writes run SQL on the event loop and COMMIT in a thread; `transaction()` serialises them. Reads see the last
    committed state through connections of their own and never wait for the writer.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._writer = None if read_only else _connect(path, read_only=False)
        self._checkpoints = Checkpoints(path)
        found = path.stat()
        self._identity = (found.st_dev, found.st_ino)
        self._reader: apsw.Connection | None = None
        self._scanner: apsw.Connection | None = None
        self._lock: asyncio.Lock | None = None
        self._commits: Runs = OwnThread(f"commit{path.suffixes[0]}")
        self._scans: Executor = ThreadPoolExecutor(1, thread_name_prefix=f"scan{path.suffixes[0]}")
        self._broken: str | None = None
        self._full: str | None = None
        self._turns = 0
        """Counts the beginnings and the ends of transactions: odd while there is one."""

    @classmethod
    def open(
        cls,
        path: Path,
        store: str,
        *,
        read_only: bool = False,
        prepare: Callable[[apsw.Connection], None] | None = None,
    ) -> Database:
        """Open (or make) the file and bring its schema up to date; then `prepare` runs, in a transaction.

        Raises NewerStore, Corrupt, ReadOnlyStore, StorageUnavailable, StorageFull.
        """
        with translated(path):
            database = cls(path, read_only=read_only)
            try:
                database._check_version(store)
                if database._writer is not None:
                    _migrate(database._writer, store, prepare)
            except BaseException:
                database.close()
                raise
            return database

    def _check_version(self, store: str) -> None:
        version = self.read("PRAGMA user_version")[0][0] if self.read_only else _version(self.writer)
        newest = len(load_migrations(store, "sqlite"))
        if version > newest:
            raise NewerStore(
                f"{self.path} has schema {version}; this program knows up to {newest}",
                hint="start the newer universal-registry that wrote it",
            )
        if self.read_only and version < newest:
            raise Conflict(f"{self.path} has schema {version}, not yet {newest}", hint="run: ureg init")

    @property
    def writer(self) -> apsw.Connection:
        """The connection for writes. Raises ReadOnlyStore on a store opened for reading."""
        if self._writer is None:
            raise ReadOnlyStore(f"{self.path} is open for reading only")
        return self._writer

    def execute(self, sql: str, params: Params = ()) -> Rows:
        """Run one statement inside the current transaction."""
        with translated(self.path):
            return self.writer.execute(sql, params).fetchall()

    def selectmany(self, sql: str, params: Sequence[Params]) -> Rows:
        """Run one reading statement for each of `params` inside the current transaction; all rows of all of them."""
        with translated(self.path):
            return self.writer.executemany(sql, params).fetchall()

    def executemany(self, sql: str, params: Sequence[Params], *, each: int | None = None) -> None:
        """Run one statement for each of `params` inside the current transaction. Raises Corrupt when it did not change
        as many rows as `each` says of each run."""
        if not params:
            return
        writer = self.writer
        before = writer.total_changes()
        with translated(self.path):
            writer.executemany(sql, params)
        changed = writer.total_changes() - before
        if each is not None and changed != each * len(params):
            raise Corrupt(f"{self.path}: {changed} rows were changed, not {each * len(params)}; nothing was written")

    def read(self, sql: str, params: Params = ()) -> Rows:
        """Read the committed state, on the loop: for statements that an index answers."""
        with translated(self.path):
            if self._reader is None:
                self._reader = _connect(self.path, read_only=True)
            return self._reader.execute(sql, params).fetchall()

    def readmany(self, sql: str, params: Sequence[Params]) -> Rows:
        """As `read`, one statement for each of `params`, all of one committed state; all rows of all of them."""
        with self.snapshot(), translated(self.path):
            assert self._reader is not None
            return self._reader.executemany(sql, params).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Every `read` in the block sees one committed state. The block must not await."""
        self.read("BEGIN")
        try:
            yield
        finally:
            self.read("COMMIT")

    async def scan(self, work: Callable[[Read], Result]) -> Result:
        """Run `work(read)` in a thread over one committed state: for statements that may walk a table."""
        return await asyncio.get_running_loop().run_in_executor(self._scans, self._scan, work)

    def _scan(self, work: Callable[[Read], Result]) -> Result:
        with translated(self.path):
            if self._scanner is None:
                self._scanner = _connect(self.path, read_only=True)
            connection = self._scanner
            connection.execute("BEGIN")
            try:
                return work(lambda sql, params=(): connection.execute(sql, params).fetchall())
            finally:
                connection.execute("COMMIT")

    @asynccontextmanager
    async def long_read(self) -> AsyncIterator[LongRead]:
        """`await read_off_loop(work)`, as often as needed: all of one committed state, on a connection of its own.

        While it is open the WAL keeps growing, so whoever opens it reads on and ends. Raises StorageUnavailable for a
        read of who has kept it for too long (`held.py`).
        """
        loop = asyncio.get_running_loop()

        def begin() -> apsw.Connection:
            with translated(self.path):
                connection = _connect(self.path, read_only=True)
                connection.execute("BEGIN")
                return connection

        connection = await loop.run_in_executor(self._scans, begin)

        def run(work: Callable[[Read], Any]) -> Any:
            with translated(self.path):
                return work(lambda sql, params=(): connection.execute(sql, params).fetchall())

        held = Held(Path(f"{self.path}-wal"), lambda: self._close_aside(connection))

        async def read_off_loop(work: Callable[[Read], Any]) -> Any:
            held.begin()
            try:
                return await loop.run_in_executor(self._scans, run, work)
            finally:
                held.end()

        try:
            yield read_off_loop
        finally:
            held.close()

    def _close_aside(self, connection: apsw.Connection) -> None:
        """In its own thread, behind a read that may still run there when the reader was cancelled."""
        try:
            self._scans.submit(connection.close)
        except RuntimeError:  # that thread has ended
            connection.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Everything executed inside is committed and fsynced when the block ends, or none of it is.

        Raises StorageFull, StorageUnavailable, StoreLocked. After an fsync that failed nothing is ever acknowledged
        again by this process: the kernel may have dropped the pages, and the next commit would seem to succeed.
        """
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            self._check_in_place()
            if self._broken:
                raise StorageUnavailable(self._broken, hint="restart the daemon; it checks the store as it starts")
            with translated(self.path):
                self.writer.execute("BEGIN IMMEDIATE")
            self._turns += 1
            try:
                yield
                await to_the_end(self._commits.run(self._commit))
                self._full = None
            except BaseException as error:
                self._full = error.message if isinstance(error, StorageFull) else self._full
                self._rollback()
                raise
            finally:
                self._turns += 1

    @property
    def state(self) -> int | None:
        """A number: what was read while it was this one is so as long as it stays, the file having one owner. None: a
        transaction is open, or it is not ours to write."""
        return None if self.read_only or self._turns & 1 else self._turns

    async def vacuum(self) -> None:
        """Write the file anew without what is free in it. Nobody writes meanwhile, and it takes as much space again.
        Raises StorageFull, StoreLocked, StorageUnavailable."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            await to_the_end(self._commits.run(self._vacuum))

    def _vacuum(self) -> None:
        with translated(self.path):
            self.writer.execute("VACUUM")
            self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _check_in_place(self) -> None:
        """SQLite goes on writing to a file that was removed or replaced; what it stores there is lost."""
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise StorageUnavailable(
                f"{self.path} was taken away while in use; nothing is written", hint="put it back, or restart"
            )

    def _commit(self) -> None:
        try:
            with translated(self.path):
                self.writer.execute("COMMIT")
            self._checkpoints.after_commit(self.writer)
        except StorageUnavailable as error:
            if error.data.get("sqlite") in _FSYNC_FAILURES:
                self._broken = f"{self.path}: an fsync failed; writes are refused"
            raise

    def _rollback(self) -> None:
        if not self.writer.get_autocommit():
            with translated(self.path):
                self.writer.execute("ROLLBACK")

    @property
    def broken(self) -> str | None:
        """Why this process cannot write: never any more, or until there is space again."""
        if self._broken is None and self._full is not None and _free_bytes(self.path) < _ENOUGH_BYTES:
            return self._full
        return self._broken

    def run_in(self, executor: Executor) -> None:
        """Run COMMITs and scans there, instead of in two threads of this store. For a store that nobody uses yet."""
        self._commits, self._scans = ByExecutor(executor), executor

    def close(self) -> None:
        """Close all connections; the last one folds the WAL into the file."""
        self._commits.close()
        self._scans.shutdown()
        self._checkpoints.close()
        for connection in (self._scanner, self._reader, self._writer):
            if connection is not None:
                connection.close()


class translated:  # noqa: N801 - used as the verb that it is
    """A block in which SQLite's errors become ours. A class: it stands around every statement, where a generator would
    cost as much as some of them."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, apsw.Error):
            raise translate(error, self._path) from error


def translate(error: apsw.Error, path: Path) -> RegistryError:
    """The error of our tree that an SQLite error stands for. `data["sqlite"]` is its extended result code."""
    code = getattr(error, "extendedresult", 0)
    text = str(error)
    full = isinstance(error, apsw.FullError)
    # Where the file beside a database that readers share cannot be made, SQLite does not say why.
    if full or (isinstance(error, apsw.IOError | apsw.CantOpenError) and _is_full(path)):
        return StorageFull(f"no space left for {path}", hint="free some space; writes then work again", sqlite=code)
    match error:
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError():
            return ReadOnlyStore(
                f"{path} cannot be opened for this: {text}", hint="check the folder's owner and mode", sqlite=code
            )
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(f"{path} is locked by another process", hint="ureg status names it", sqlite=code)
        case apsw.CorruptError() | apsw.NotADBError():
            return Corrupt(f"{path} is damaged or not a database: {text}", hint="restore it from a backup", sqlite=code)
        case apsw.ConstraintError():
            return Conflict(text, sqlite=code)
        case apsw.IOError():
            return StorageUnavailable(f"{path} cannot be read or written: {text}", sqlite=code)
        case _:
            return StorageUnavailable(f"{path}: {text}", sqlite=code)


def _connect(path: Path, *, read_only: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(str(path), flags=flags, statementcachesize=256)
    connection.set_busy_timeout(_BUSY_MS)
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint=0")  # see checkpoints.py
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _is_full(path: Path) -> bool:
    try:
        return _free_bytes(path) < _NO_ROOM
    except OSError:
        return False


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


def _version(connection: apsw.Connection) -> int:
    version: int = connection.pragma("user_version")
    return version


def _migrate(connection: apsw.Connection, store: str, prepare: Callable[[apsw.Connection], None] | None) -> None:
    for step in load_migrations(store, "sqlite"):
        if step.number > _version(connection):
            with connection:
                connection.execute(step.sql)
                connection.execute(f"PRAGMA user_version={step.number}")
    if prepare is not None:
        with connection:
            prepare(connection)
