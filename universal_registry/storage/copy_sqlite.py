"""Both SQLite stores as a source of rows, and as a place to put them (copying.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import apsw

from universal_registry.kernel.errors import Corrupt, NewerStore
from universal_registry.kernel.settings import Places
from universal_registry.log.chain import GENESIS
from universal_registry.registry.catalogue import Catalogue
from universal_registry.storage.copying import (
    INCARNATION,
    STORES,
    Batch,
    Point,
    carried,
    check_columns,
    in_batches,
)
from universal_registry.storage.database import translated
from universal_registry.storage.ddl import quoted
from universal_registry.storage.registry_sqlite import make_kinds
from universal_registry.storage.sqlfiles import load_migrations, load_queries
from universal_registry.storage.threads import in_thread

ENGINE = "sqlite"
_BUSY_MS = 5000
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
_KEYS = "SELECT kid FROM sealing_keys WHERE state <> 'retired' ORDER BY kid"
_TRIGGERS = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"


class _Stores:
    """Connections to both files, used by one thread at a time."""

    def __init__(self, files: dict[str, apsw.Connection]) -> None:
        self.files = files

    def tables(self) -> list[str]:
        """All that are copied, as `store.name`."""
        found = [f"{store}.{row[0]}" for store in STORES for row in self.files[store].execute(_TABLES)]
        return carried(ENGINE, found)

    def columns(self, table: str) -> tuple[str, ...]:
        """Those that are stored, not computed."""
        store, _, name = table.partition(".")
        rows = self.files[store].execute(f"PRAGMA table_xinfo({quoted(name)})")
        return tuple(str(row[1]) for row in rows if row[6] == 0)

    def rows(self, table: str, columns: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
        store, _, name = table.partition(".")
        what = ", ".join(map(quoted, columns))
        # The incarnation is the point's: it is not the same on both sides of a copy.
        where = f" WHERE key <> '{INCARNATION}'" if table == "registry.meta" else ""
        yield from self.files[store].execute(f"SELECT {what} FROM {quoted(name)}{where}")

    async def batches(self) -> AsyncIterator[Batch]:
        for table in self.tables():
            columns = await in_thread(self.columns, table)
            batches = in_batches(table, columns, self.rows(table, columns))
            while (batch := await in_thread(_next, batches)) is not None:
                yield batch


def _next(batches: Iterator[Batch]) -> Batch | None:
    return next(batches, None)


class SqliteSource(_Stores):
    """Reads both files, also while a daemon writes them."""

    def __init__(self, files: dict[str, apsw.Connection], point: Point) -> None:
        super().__init__(files)
        self.point = point


@asynccontextmanager
async def sqlite_source(places: Places) -> AsyncIterator[SqliteSource]:
    """Both files, each as of one moment: first the propagation store, so that it is never ahead of the log.

    Raises Corrupt, ReadOnlyStore, StoreLocked, StorageUnavailable.
    """
    with ExitStack() as stack, translated(places.registry_db):
        yield await in_thread(_opened, places, stack)


def _opened(places: Places, stack: ExitStack) -> SqliteSource:
    files = {}
    for store, path in (("propagation", places.propagation_db), ("registry", places.registry_db)):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        stack.callback(connection.close)
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("BEGIN")
        connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchall()  # the state is that of the first read
        files[store] = connection
    return SqliteSource(files, _point(files))


def _point(files: dict[str, apsw.Connection]) -> Point:
    sql = load_queries("sqlite/registry.sql")
    head: list[Any] = files["registry"].execute(sql["head"]).fetchall()
    rows: list[Any] = files["registry"].execute(sql["meta"]).fetchall()
    facts: dict[str, str] = dict(rows)
    return Point(
        engine=ENGINE,
        incarnation=facts[INCARNATION],
        revision=head[0][0] if head else 0,
        hash=(bytes(head[0][1]) if head else GENESIS).hex(),
        schema={store: int(files[store].pragma("user_version")) for store in STORES},
        key_fingerprint=facts.get("key_fingerprint"),
        keys=tuple(str(row[0]) for row in files["registry"].execute(_KEYS)) if _has_keys(files) else (),
    )


def _has_keys(files: dict[str, apsw.Connection]) -> bool:
    """A store of an older version has none of that table."""
    return any(row[0] == "sealing_keys" for row in files["registry"].execute(_TABLES))


class SqliteSink(_Stores):
    """Two new files."""

    async def take(self, batch: Batch) -> None:
        store, _, name = batch.table.partition(".")
        if batch.table not in self.tables():
            if batch.rows:
                raise Corrupt(f"there is no table {batch.table} here", hint="use the version that wrote it")
            return
        columns = check_columns(batch.table, batch.columns, self.columns(batch.table))
        places = [batch.columns.index(column) for column in columns]
        what, values = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        sql = f"INSERT INTO {quoted(name)} ({what}) VALUES ({values})"
        rows = [tuple(row[place] for place in places) for row in batch.rows]
        await in_thread(self.files[store].executemany, sql, rows)

    async def name(self, point: Point, incarnation: str) -> None:
        registry, propagation = self.files["registry"], self.files["propagation"]
        registry.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (INCARNATION, incarnation))
        propagation.execute("UPDATE lanes SET owner = '', lease_until = NULL")
        if incarnation != point.incarnation:
            for statement in load_queries("sqlite/copying.sql").values():
                propagation.execute(statement, {"before": point.incarnation, "now": incarnation})


class SqliteFolder:
    """A folder in which both files are made, under the names that they have in a home."""

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self._places = Places(folder)
        self._catalogue = catalogue

    @asynccontextmanager
    async def begin(self, point: Point) -> AsyncIterator[SqliteSink]:
        """As Sinks. The schema is that of the point, so that the rows fit; who opens the files brings it up to date."""
        places = self._places
        with ExitStack() as stack, translated(places.registry_db):
            files = {}
            for store, path in (("registry", places.registry_db), ("propagation", places.propagation_db)):
                files[store] = _made(path, store, point, self._catalogue)
                stack.callback(files[store].close)
            triggers = {store: files[store].execute(_TRIGGERS).fetchall() for store in STORES}
            sink = SqliteSink(files)
            for connection in files.values():
                connection.execute("BEGIN IMMEDIATE")
            for store in STORES:
                for name, _ in triggers[store]:
                    files[store].execute(f"DROP TRIGGER {quoted(str(name))}")
            for table in reversed(sink.tables()):  # some begin with rows
                store, _, name = table.partition(".")
                files[store].execute(f"DELETE FROM {quoted(name)}")
            yield sink  # what is raised here leaves two files that nobody names
            for store in STORES:
                for _, sql in triggers[store]:
                    files[store].execute(str(sql))
                files[store].execute("COMMIT")


def _made(path: Path, store: str, point: Point, catalogue: Catalogue) -> apsw.Connection:
    """A new file with the schema that the rows are of."""
    steps = load_migrations(store, ENGINE)
    wanted = point.schema[store] if point.engine == ENGINE else len(steps)
    if wanted > len(steps):
        raise NewerStore(f"this has schema {store} {wanted}; this program knows up to {len(steps)}")
    path.touch(mode=0o640)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=FULL")
    with connection:
        for step in steps[:wanted]:
            connection.execute(step.sql)
        connection.execute(f"PRAGMA user_version={wanted}")
        if store == "registry":
            make_kinds(connection, catalogue)
    return connection
