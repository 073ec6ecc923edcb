"""The registry store on SQLite: one table per kind and the change log, in `.universal_registry.db`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

import apsw

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.kernel.world import World
from universal_registry.log.chain import GENESIS
from universal_registry.log.change import Change
from universal_registry.log.cursor import Cursor, Head, of_another_history
from universal_registry.log.horizon import Horizon
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.once import Kept
from universal_registry.registry.ports import Page, Seen
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.watch import Passage
from universal_registry.registry.words import ENVELOPE
from universal_registry.storage.batch_sqlite import (
    COLUMNS,
    SEQ_BITS,
    Parts,
    SqliteBatch,
    Stamp,
    kept_of,
    position_of,
    select_sql,
)
from universal_registry.storage.database import Database, Read, Rows
from universal_registry.storage.ddl import kind_ddl, promoted_fields, quoted, records_view
from universal_registry.storage.known_lines import KnownLines
from universal_registry.storage.known_rows import KnownRows
from universal_registry.storage.paging import decode_page, encode_page
from universal_registry.storage.rows import change_of, passage_of, record_of
from universal_registry.storage.select_sql import where_sql
from universal_registry.storage.sqlfiles import load_queries
from universal_registry.storage.sync_sqlite import SqliteSyncView

_UID = ENVELOPE.index("uid")
_HEAD_REVISION = f"(SELECT MAX(position) >> {SEQ_BITS} FROM changes)"
_VERSION = "PRAGMA data_version"
_INCARNATION_DIGITS = 12
_NO_REVISION = 1 << 42


class SqliteRegistry:
    """RecordReader, LogReader and BatchStore over one SQLite file."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database = database
        self._catalogue = catalogue
        self._sql = load_queries("sqlite/registry.sql")
        self._tables = {kind.name: quoted(kind.plural) for kind in catalogue.kinds.values()}
        self._known = KnownRows()
        self._newest = KnownLines()
        self._parts = Parts(database, self._sql, self._tables, self._known)
        self._batches = 0
        self._meta: dict[str, str] = dict(database.read(self._sql["meta"]))
        if "incarnation" not in self._meta:
            raise StorageUnavailable(f"{database.path} was never initialised", hint="run: ureg init")

    @classmethod
    def open(cls, path: Path, catalogue: Catalogue, world: World, *, read_only: bool = False) -> SqliteRegistry:
        """Open the file; make it, or bring its schema up to date, unless `read_only`. Errors as `Database.open`."""

        def prepare(connection: apsw.Connection) -> None:
            make_kinds(connection, catalogue)
            connection.execute(load_queries("sqlite/registry.sql")["first_horizon"])
            connection.execute(
                "INSERT OR IGNORE INTO meta (key, value) VALUES ('incarnation', ?), ('created_at', ?)",
                (world.new_id()[-_INCARNATION_DIGITS:], world.now().isoformat()),
            )

        return cls(Database.open(path, "registry", read_only=read_only, prepare=prepare), catalogue)

    @property
    def database(self) -> Database:
        """The file, for health checks and closing."""
        return self._database

    # --- facts about the store -----------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """One fact about the store (`incarnation`, `key_fingerprint`, `fingerprint_key` ...)."""
        return self._meta.get(key)

    async def set_meta(self, facts: Mapping[str, str]) -> None:
        """Record facts about the store, durably."""
        async with self._database.transaction():
            self._database.executemany(self._sql["set_meta"], list(facts.items()))
        self._meta.update(facts)

    async def claim_meta(self, facts: Mapping[str, str]) -> None:
        """Record those of the facts that nobody has recorded yet. A file has one owner: nobody else is at it."""
        await self.set_meta({key: value for key, value in facts.items() if key not in self._meta})

    def changed_beside(self, facts: Mapping[str, str]) -> None:
        """Records were written by a transaction of this process that is no batch, and these facts: it says so before
        it commits, and nothing that was known of records is relied upon any more."""
        self._known.forget()
        self._newest.forget()
        self._batches += 1
        self._meta.update(facts)

    def lines_changed(self) -> None:
        """Lines of the log were written anew or removed, in a transaction of this process that is no batch."""
        self._newest.forget()

    # --- RecordReader --------------------------------------------------------------------------------------------

    async def get(self, key: Key) -> Record | None:
        """The record, if there is one."""
        rows = self._database.read(select_sql(self._tables[key.kind]), (key.namespace, key.name))
        return record_of(key.kind, rows[0]) if rows else None

    async def look(self, key: Key) -> Seen:
        """The record and the head's revision: one statement, so one state. A miss takes a second look, at both."""
        table = self._tables[key.kind]
        rows = self._database.read(_look_sql(table), (key.namespace, key.name))
        if not rows:
            rows = self._database.read(_look_again_sql(table), (key.namespace, key.name))
        revision, *row = rows[0]
        there = row[_UID] is not None
        return Seen(record=record_of(key.kind, tuple(row)) if there else None, revision=revision or 0)

    @property
    def state(self) -> int | None:
        """As `Database.state`."""
        return self._database.state

    async def find(self, name: str, namespace: str | None = None) -> Sequence[Record]:
        """All records of that exact name, in order of kind and namespace."""
        found: list[Record] = []
        with self._database.snapshot():
            for kind, table in sorted(self._tables.items()):
                sql, params = _find_sql(table, name, namespace)
                found.extend(record_of(kind, row) for row in self._database.read(sql, params))
        return found

    async def select(self, selector: Selector, *, limit: int, page: str | None = None) -> Page:
        """Selected records in order of (kind, namespace, name); reads a table at most once, off the loop."""
        after = decode_page(page) if page else None
        kinds = sorted(selector.kinds or self._tables)

        def work(read: Read) -> Page:
            return self._page_after(kinds, selector, after, limit, read)

        return await self._database.scan(work)

    async def pages(self, selector: Selector | None, *, size: int) -> AsyncGenerator[Page, None]:
        """All selected records (None: of every namespace) from one state, on a connection of their own."""
        kinds = sorted((selector.kinds if selector else ()) or self._tables)
        async with self._database.long_read() as read_off_loop:
            after: Key | None = None
            while True:
                page: Page = await read_off_loop(partial(self._page_after, kinds, selector, after, size))
                yield page
                if page.next is None:
                    return
                after = page.records[-1].key

    def _page_after(
        self, kinds: Sequence[str], selector: Selector | None, after: Key | None, limit: int, read: Read
    ) -> Page:
        found: list[Record] = []
        for kind in kinds:
            if after is not None and kind < after.kind:
                continue
            sql, params = self._list_sql(kind, selector, after, limit + 1 - len(found))
            found.extend(record_of(kind, row) for row in read(sql, params))
            if len(found) > limit:
                break
        head = read(self._sql["head"])
        return Page(
            records=tuple(found[:limit]),
            revision=head[0][0] if head else 0,
            next=encode_page(found[limit - 1].key) if len(found) > limit else None,
        )

    def _list_sql(
        self, kind: str, selector: Selector | None, after: Key | None, limit: int
    ) -> tuple[str, list[object]]:
        promoted = frozenset(field.name for field in promoted_fields(self._catalogue.kinds[kind]))
        condition, params = where_sql(selector, promoted) if selector is not None else ("1", [])
        if after is not None and after.kind == kind:
            condition += " AND (namespace, name) > (?, ?)"
            params += [after.namespace, after.name]
        sql = f"SELECT {COLUMNS} FROM {self._tables[kind]} WHERE {condition} ORDER BY namespace, name LIMIT ?"
        return sql, [*params, limit]

    async def kept(self, actor: str, key: str) -> Kept | None:
        """What was answered to the actor's request with that idempotency key."""
        rows = self._database.read(self._sql["kept"], (actor, key))
        return kept_of(rows[0]) if rows else None

    async def counts(self) -> dict[str, int]:
        """Records per kind, kinds with none left out."""

        def work(read: Read) -> dict[str, int]:
            counted = {kind: read(f"SELECT COUNT(*) FROM {table}")[0][0] for kind, table in self._tables.items()}
            return {kind: count for kind, count in counted.items() if count}

        return await self._database.scan(work)

    # --- LogReader -----------------------------------------------------------------------------------------------

    async def changes(self, after: int, limit: int, *, upto: int | None = None) -> Sequence[Change]:
        """Whole revisions after `after`, about `limit` lines, at least one revision when there is one."""
        head = await self.head()
        if self._newest.hold(head.revision, head.hash):
            end = head.revision if upto is None else min(upto, head.revision)
            known = self._newest.after(after, limit, end)
            if known is not None:
                return known
        end = position_of((upto if upto is not None else _NO_REVISION) + 1, 0)
        lines = self._lines(position_of(after + 1, 0) - 1, end, limit + 1)
        if len(lines) <= limit:
            return lines
        cut = lines[-1].revision
        whole = [line for line in lines if line.revision < cut]
        # A read of its own is no other state: a line that can be seen never changes.
        return whole or self._lines(position_of(cut, 0) - 1, position_of(cut + 1, 0), -1)

    def _lines(self, after: int, before: int, limit: int) -> list[Change]:
        return [change_of(row) for row in self._database.read(self._sql["lines"], (after, before, limit))]

    async def passages(
        self, after: int, limit: int, *, upto: int | None = None, aside: bool = False
    ) -> Sequence[Passage]:
        """As `changes`, each line with the value before it."""
        end = position_of((upto if upto is not None else _NO_REVISION) + 1, 0)

        def work(read: Read) -> list[Passage]:
            rows = read(self._sql["passages"], (position_of(after + 1, 0) - 1, end, limit))
            if len(rows) == limit:  # the last revision may go on
                last = rows[-1]
                rows += read(self._sql["passages"], (position_of(*last[:2]), position_of(last[0] + 1, 0), -1))
            return [passage_of(row) for row in rows]

        return await self._database.scan(work) if aside else work(self._database.read)

    async def line(self, revision: int, seq: int) -> Change | None:
        """One line, if the log has it."""
        rows = self._database.read(self._sql["line"], (position_of(revision, seq),))
        return change_of(rows[0]) if rows else None

    async def newest_places(self, revision: int, seq: int, limit: int) -> Sequence[tuple[int, int]]:
        """(revision, seq) of the lines behind a place, newest first: at most `limit`."""
        sql, where = self._sql["newest_places"], (position_of(revision, seq), limit)
        return await self._database.scan(lambda read: [(row[0], row[1]) for row in read(sql, where)])

    async def history(
        self, key: Key, limit: int, *, before: int | None = None, events: bool = True
    ) -> Sequence[Change]:
        """The newest lines about one record, newest first; of revisions below `before`; without its `events` or not."""
        name = "history" if events else "history_of_state"
        params = (*key, _NO_REVISION if before is None else before, limit)
        return [change_of(row) for row in self._database.read(self._sql[name], params)]

    async def lines_of_kind(self, kind: str, namespace: str) -> Sequence[Change]:
        """All lines about the records of one kind in one namespace, oldest first."""
        return [change_of(row) for row in self._database.read(self._sql["lines_of_kind"], (kind, namespace))]

    async def head(self) -> Head:
        """The end of the log."""
        return self._head(self._database.read(self._sql["head"]))

    def _head(self, rows: Rows) -> Head:
        incarnation = self._meta["incarnation"]
        if not rows:
            return Head(incarnation, 0, GENESIS)
        revision, chained = rows[0]
        return Head(incarnation, revision, bytes(chained))

    async def check_cursor(self, cursor: Cursor) -> None:
        """Raises CursorMismatch unless the cursor is of this store and this history; CursorGone behind the horizon."""
        head, horizon = await self.head(), await self.horizon()
        if cursor.incarnation == head.incarnation and cursor.revision <= head.revision:
            horizon.check(cursor, head)
            rows = self._database.read(self._sql["hash_at"], {"revision": cursor.revision})
            if (bytes(rows[0][0]) if rows else horizon.hash)[:4].hex() == cursor.hash8:
                return
        raise of_another_history(cursor, head)

    async def horizon(self) -> Horizon:
        """How far back the log is whole."""
        values, lines, chained, living = self._database.read(self._sql["horizon"])[0]
        return Horizon(values=values, lines=lines, hash=bytes(chained), living=living)

    # --- versions ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def sync_view(self) -> AsyncIterator[SqliteSyncView]:
        """What is kept of versions, from one committed state. The block awaits nothing but what it asks here."""
        with self._database.snapshot():
            yield SqliteSyncView(self._database)

    # --- BatchStore ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[SqliteBatch]:
        """A transaction with the write guard open."""
        try:
            async with self._database.transaction():
                head = self._head(self._database.execute(self._sql["head"]))
                version = self._database.execute(_VERSION)[0][0]
                self._known.of_version(version)
                self._batches += 1
                batch = SqliteBatch(self._parts, head, Stamp(version, self._batches))
                yield batch
                batch.finish()
                self._newest.keep(batch.lines)
        except BaseException:  # whatever ended it: nobody can say here whether it was committed
            self._known.forget()
            self._newest.forget()
            raise
        self._known.keep(batch.rows)


@cache
def _look_sql(table: str) -> str:
    return f"SELECT {_HEAD_REVISION}, {COLUMNS} FROM {table} WHERE namespace = ? AND name = ?"


@cache
def _look_again_sql(table: str) -> str:
    # Not at once, though it would do for both: an outer join costs five times the plain read.
    joined = f"(SELECT 1) LEFT JOIN {table} ON namespace = ? AND name = ?"
    return f"SELECT {_HEAD_REVISION}, {COLUMNS} FROM {joined}"


def _find_sql(table: str, name: str, namespace: str | None) -> tuple[str, tuple[str, ...]]:
    """By the key: the namespaces of a table are few, and each is found by one step in its index."""
    if namespace is not None:
        return f"SELECT {COLUMNS} FROM {table} WHERE namespace = ? AND name = ?", (namespace, name)
    sql = (
        f"WITH RECURSIVE known (each) AS (SELECT MIN(namespace) FROM {table} UNION ALL "
        f"SELECT (SELECT MIN(namespace) FROM {table} WHERE namespace > each) FROM known WHERE each IS NOT NULL) "
        f"SELECT {COLUMNS} FROM known JOIN {table} ON namespace = each WHERE name = ? AND each <> ? ORDER BY namespace"
    )
    return sql, (name, SYSTEM_NAMESPACE)


def make_kinds(connection: apsw.Connection, catalogue: Catalogue) -> None:
    """Make the tables of kinds that have none yet, and add the columns of fields that a newer catalogue declares."""
    present = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    made = False
    for kind in catalogue.kinds.values():
        if kind.plural not in present:
            made = True
            for statement in kind_ddl(kind):
                connection.execute(statement)
    if made:
        connection.execute("DROP VIEW IF EXISTS records")
        connection.execute(records_view(catalogue))
