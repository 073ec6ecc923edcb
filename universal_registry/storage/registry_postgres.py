"""The registry store on PostgreSQL: one table per kind and the change log, in the schema `registry`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.kernel.settings import PostgresSettings
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
from universal_registry.storage.batch_postgres import PostgresBatch, kept_of
from universal_registry.storage.ddl import (
    kind_ddl,
    postgres_column,
    postgres_indexes,
    promoted_fields,
    quoted,
    records_view,
)
from universal_registry.storage.known_rows import KnownRows
from universal_registry.storage.paging import decode_page, encode_page
from universal_registry.storage.postgres import PgConnection, PgDatabase
from universal_registry.storage.rows import change_of, passage_of, record_of
from universal_registry.storage.select_postgres import Condition, where_postgres
from universal_registry.storage.sqlfiles import load_queries
from universal_registry.storage.sync_postgres import PgSyncTables

_SQL = load_queries("postgres/registry.sql")
_COLUMNS = ", ".join(quoted(column) for column in ENVELOPE)
_SEQ_BITS = 20
_INCARNATION_DIGITS = 12
_NO_REVISION = 1 << 42


class PostgresRegistry:
    """RecordReader, LogReader and BatchStore over one schema. Any number of processes may write it."""

    def __init__(self, database: PgDatabase, catalogue: Catalogue, meta: Mapping[str, str]) -> None:
        self._database = database
        self._catalogue = catalogue
        self._tables = {kind.name: quoted(kind.plural) for kind in catalogue.kinds.values()}
        self._plurals = {kind.name: kind.plural for kind in catalogue.kinds.values()}
        self._promoted = {
            kind.name: {field.name: field for field in promoted_fields(kind)} for kind in catalogue.kinds.values()
        }
        self._meta = dict(meta)
        self._known = KnownRows()

    @classmethod
    async def open(
        cls, settings: PostgresSettings, catalogue: Catalogue, world: World, *, read_only: bool = False, size: int = 6
    ) -> PostgresRegistry:
        """Connect; make the schema, or bring it up to date, unless `read_only`. Errors as `PgDatabase.open`."""

        async def prepare(connection: PgConnection) -> None:
            await make_kinds(connection, catalogue)
            await connection.execute("SELECT set_config('ureg.write', 'on', true)")
            await connection.execute(_SQL["first_head"], GENESIS, world.new_id()[-_INCARNATION_DIGITS:])
            await connection.execute(_SQL["first_horizon"])
            await connection.execute(_SQL["claim_meta"], ["created_at"], [world.now().isoformat()])

        database = await PgDatabase.open(settings, "registry", world, read_only=read_only, prepare=prepare, size=size)
        meta = dict(map(tuple, await database.fetch(_SQL["meta"])))
        if "incarnation" not in meta:
            await database.close()
            raise StorageUnavailable(f"{database.place} was never initialised", hint="run: ureg init")
        return cls(database, catalogue, meta)

    @property
    def database(self) -> PgDatabase:
        """The pool, for health checks and closing."""
        return self._database

    # --- facts about the store -----------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """One fact about the store (`incarnation`, `key_fingerprint`, `fingerprint_key` ...)."""
        return self._meta.get(key)

    async def set_meta(self, facts: Mapping[str, str]) -> None:
        """Record facts about the store, durably."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["set_meta"], list(facts), list(facts.values()))
        self._meta.update(facts)

    async def claim_meta(self, facts: Mapping[str, str]) -> None:
        """Record those of the facts that nobody has recorded yet; all are then as the store has them."""
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["claim_meta"], list(facts), list(facts.values()))
        self._meta = dict(map(tuple, await self._database.fetch(_SQL["meta"])))

    async def read_facts(self) -> None:
        """See which facts other daemons have changed."""
        self._meta = dict(map(tuple, await self._database.fetch(_SQL["meta"])))

    # --- RecordReader --------------------------------------------------------------------------------------------

    @property
    def state(self) -> int | None:
        """None: other daemons write too."""
        return None

    async def get(self, key: Key) -> Record | None:
        """The record, if there is one."""
        rows = await self._database.fetch(self._one(key.kind), key.namespace, key.name)
        return record_of(key.kind, rows[0]) if rows else None

    async def look(self, key: Key) -> Seen:
        """The record and the head's revision: one statement, so one state."""
        sql = f"SELECT h.revision, r.* FROM head AS h LEFT JOIN LATERAL ({self._one(key.kind)}) AS r ON true"
        ((revision, *row),) = await self._database.fetch(sql, key.namespace, key.name)
        there = row[ENVELOPE.index("uid")] is not None
        return Seen(record=record_of(key.kind, tuple(row)) if there else None, revision=revision)

    def _one(self, kind: str) -> str:
        return f"SELECT {_COLUMNS} FROM {self._tables[kind]} WHERE namespace = $1 AND name = $2"

    async def find(self, name: str, namespace: str | None = None) -> Sequence[Record]:
        """All records of that exact name, in order of kind and namespace: by the key, in each namespace there is."""
        if chr(0) in name:
            return []
        where = f"namespace IN (SELECT namespace FROM namespaces WHERE namespace <> '{SYSTEM_NAMESPACE}')"
        if namespace is not None:
            where = "namespace = $2"
        sql = "\nUNION ALL ".join(
            f"SELECT '{kind}', {_COLUMNS} FROM {table} WHERE name = $1 AND {where}"
            for kind, table in self._tables.items()
        )
        rows = await self._database.fetch(sql, name, *([namespace] if namespace is not None else []))
        found = [record_of(row[0], tuple(row)[1:]) for row in rows]
        return sorted(found, key=lambda record: record.key)

    async def select(self, selector: Selector, *, limit: int, page: str | None = None) -> Page:
        """Selected records in order of (kind, namespace, name), from one committed state."""
        after = decode_page(page) if page else None
        kinds = sorted(selector.kinds or self._tables)
        async with self._database.snapshot() as connection:
            return await self._page(connection, kinds, selector, after, limit)

    async def pages(self, selector: Selector | None, *, size: int) -> AsyncGenerator[Page, None]:
        """All selected records (None: of every namespace) from one state, on a connection of their own."""
        kinds = sorted((selector.kinds if selector else ()) or self._tables)
        async with self._database.long_snapshot() as connection:
            after: Key | None = None
            while True:
                page = await self._page(connection, kinds, selector, after, size)
                yield page
                if page.next is None:
                    return
                after = page.records[-1].key

    async def _page(
        self, connection: PgConnection, kinds: Sequence[str], selector: Selector | None, after: Key | None, limit: int
    ) -> Page:
        found: list[Record] = []
        for kind in kinds:
            if after is not None and kind < after.kind:
                continue
            sql, params = self._list_sql(kind, selector, after, limit + 1 - len(found))
            found.extend(record_of(kind, row) for row in await connection.fetch(sql, *params))
            if len(found) > limit:
                break
        return Page(
            records=tuple(found[:limit]),
            revision=await connection.fetchval(_SQL["head"]),
            next=encode_page(found[limit - 1].key) if len(found) > limit else None,
        )

    def _list_sql(self, kind: str, selector: Selector | None, after: Key | None, limit: int) -> tuple[str, list[Any]]:
        where = where_postgres(selector, self._promoted[kind]) if selector is not None else Condition()
        if after is not None and after.kind == kind:
            where.terms.append(f"(namespace, name) > ({where.mark(after.namespace)}, {where.mark(after.name)})")
        sql = f"SELECT {_COLUMNS} FROM {self._tables[kind]} WHERE {where.sql} ORDER BY namespace, name LIMIT {limit}"
        return sql, where.params

    async def kept(self, actor: str, key: str) -> Kept | None:
        """What was answered to the actor's request with that idempotency key."""
        rows = await self._database.fetch(_SQL["kept"], [actor], [key])
        return kept_of(rows[0]) if rows else None

    async def counts(self) -> dict[str, int]:
        """Records per kind, kinds with none left out."""
        sql = "\nUNION ALL ".join(f"SELECT '{kind}', count(*) FROM {table}" for kind, table in self._tables.items())
        return {row[0]: row[1] for row in await self._database.fetch(sql) if row[1]}

    # --- LogReader -----------------------------------------------------------------------------------------------

    async def changes(self, after: int, limit: int, *, upto: int | None = None) -> Sequence[Change]:
        """Whole revisions after `after`, about `limit` lines, at least one revision when there is one."""
        sql, end = _SQL["lines"], position_of((upto if upto is not None else _NO_REVISION) + 1, 0)
        rows = await self._database.fetch(sql, position_of(after + 1, 0) - 1, end, limit + 1)
        if len(rows) > limit:
            cut = rows[-1][0]
            whole = [row for row in rows if row[0] < cut]
            rows = whole or await self._database.fetch(sql, position_of(cut, 0) - 1, position_of(cut + 1, 0), None)
        return [change_of(row) for row in rows]

    async def passages(
        self, after: int, limit: int, *, upto: int | None = None, aside: bool = True  # noqa: ARG002
    ) -> Sequence[Passage]:  # fmt: skip
        """As `changes`, each line with the value before it, fewer than `limit` only if that is all; always `aside`,
        since the server reads."""
        sql, end = _SQL["passages"], position_of((upto if upto is not None else _NO_REVISION) + 1, 0)
        rows = list(await self._database.fetch(sql, position_of(after + 1, 0) - 1, end, limit))
        if len(rows) == limit:  # the last revision may go on
            revision, seq = rows[-1][:2]
            rows += await self._database.fetch(sql, position_of(revision, seq), position_of(revision + 1, 0), None)
        return [passage_of(row) for row in rows]

    async def line(self, revision: int, seq: int) -> Change | None:
        """One line, if the log has it."""
        rows = await self._database.fetch(_SQL["line"], position_of(revision, seq))
        return change_of(rows[0]) if rows else None

    async def newest_places(self, revision: int, seq: int, limit: int) -> Sequence[tuple[int, int]]:
        """(revision, seq) of the lines behind a place, newest first: at most `limit`."""
        rows = await self._database.fetch(_SQL["newest_places"], position_of(revision, seq), limit)
        return [(row[0], row[1]) for row in rows]

    async def history(
        self, key: Key, limit: int, *, before: int | None = None, events: bool = True
    ) -> Sequence[Change]:
        """The newest lines about one record, newest first; of revisions below `before`; without its `events` or not."""
        sql = _SQL["history" if events else "history_of_state"]
        end = position_of(_NO_REVISION if before is None else before, 0)
        return [change_of(row) for row in await self._database.fetch(sql, *key, end, limit)]

    async def lines_of_kind(self, kind: str, namespace: str) -> Sequence[Change]:
        """All lines about the records of one kind in one namespace, oldest first."""
        return [change_of(row) for row in await self._database.fetch(_SQL["lines_of_kind"], kind, namespace)]

    async def head(self) -> Head:
        """The end of the log."""
        (row,) = await self._database.fetch(_SQL["head"])
        return _head(row)

    async def check_cursor(self, cursor: Cursor) -> None:
        """Raises CursorMismatch unless the cursor is of this store and this history; CursorGone behind the horizon."""
        head, horizon = await self.head(), await self.horizon()
        if cursor.incarnation == head.incarnation and cursor.revision <= head.revision:
            horizon.check(cursor, head)
            rows = await self._database.fetch(_SQL["hash_at"], cursor.revision)
            if (rows[0][0] if rows else horizon.hash)[:4].hex() == cursor.hash8:
                return
        raise of_another_history(cursor, head)

    async def horizon(self) -> Horizon:
        """How far back the log is whole."""
        values, lines, chained, living = (await self._database.fetch(_SQL["horizon"]))[0]
        return Horizon(values=values, lines=lines, hash=chained, living=living)

    # --- versions ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def sync_view(self) -> AsyncIterator[PgSyncTables]:
        """What is kept of versions, from one committed state."""
        async with self._database.snapshot() as connection:
            yield PgSyncTables(connection)

    # --- BatchStore ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[PostgresBatch]:
        """A transaction that holds the head's row. A connection lost at its end is answered by the log itself."""
        batch: PostgresBatch | None = None
        try:
            async with self._database.transaction() as connection:
                row = await connection.fetchrow(_SQL["lock_head"])
                self._known.of_version(head := _head(row))
                batch = PostgresBatch(connection, self._tables, self._plurals, head, self._known, synced=row[3])
                yield batch
        except StorageUnavailable as error:
            self._known.forget()
            if batch is None or batch.written is None or not error.data.get("in_doubt"):
                raise
            if not await self._has(batch.written):
                raise StorageUnavailable(
                    f"{self._database.place} was lost during a commit, and nothing of it was done", hint="try again"
                ) from error
        except BaseException:
            self._known.forget()
            raise
        else:
            self._known.keep(batch.rows, batch.written)

    async def _has(self, written: Head) -> bool:
        """Whether the log has that line: once the head's row is ours, the commit in question has ended either way."""
        async with self._database.transaction() as connection:
            await connection.fetchrow(_SQL["lock_head"])
            return bool(await connection.fetchval(_SQL["hash_at"], written.revision) == written.hash)


def _head(row: Any) -> Head:
    return Head(incarnation=row[2], revision=row[0], hash=row[1])


def position_of(revision: int, seq: int) -> int:
    """Where a line stands in the log: a number in order of (revision, seq)."""
    return (revision << _SEQ_BITS) + seq


async def make_kinds(connection: PgConnection, catalogue: Catalogue) -> None:
    """Make the tables of kinds that have none yet, and add the columns of fields that a newer catalogue declares."""
    present: dict[str, set[str]] = {}
    for row in await connection.fetch(_SQL["columns"]):
        present.setdefault(row[0], set()).add(row[1])
    statements: list[str] = []
    made = False
    for kind in catalogue.kinds.values():
        columns = present.get(kind.plural)
        if columns is None:
            made = True
            statements += kind_ddl(kind, "postgres")
            continue
        new = [field for field in promoted_fields(kind) if field.name not in columns]
        statements += [f"ALTER TABLE {quoted(kind.plural)} ADD COLUMN {postgres_column(field)}" for field in new]
        statements += postgres_indexes(kind, new)
    if made:
        statements.append(records_view(catalogue).replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
    if statements:
        await connection.execute(";\n".join(statements))
