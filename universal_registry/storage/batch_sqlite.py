"""An open transaction of the registry store on SQLite, and what the store can tell ahead of the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.log.cursor import Head
from universal_registry.registry.once import Kept, forgotten_before
from universal_registry.registry.record import Record
from universal_registry.registry.words import ENVELOPE
from universal_registry.storage.database import Database, Rows
from universal_registry.storage.ddl import quoted
from universal_registry.storage.known_rows import KnownRows, Row
from universal_registry.storage.rows import record_of, row_of, row_of_change
from universal_registry.storage.sync_sqlite import SqliteSyncTables

if TYPE_CHECKING:
    from universal_registry.storage.writer import Outlook

SEQ_BITS = 20
COLUMNS = ", ".join(quoted(column) for column in ENVELOPE)
_CLASS = "classification"
_LASTING = ("uid", "namespace", "name", "created_revision", "created_at", "created_by")


class Parts(NamedTuple):
    """What a batch needs of its store."""

    database: Database
    sql: Mapping[str, str]
    tables: Mapping[str, str]
    known: KnownRows


class Stamp(NamedTuple):
    """Which batch of this process, and the version of the file for it, which changes when others commit."""

    version: int
    number: int


class SqliteOutlook:
    """Outlook: the rows written last, and the committed state."""

    def __init__(self, parts: Parts, stamp: Stamp) -> None:
        self._parts = parts
        self.stamp = stamp

    def records(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        return _records(self._parts, keys, self._parts.database.readmany)

    def kept(self, name: tuple[str, str]) -> Kept | None:
        rows = self._parts.database.read(self._parts.sql["kept"], name)
        return kept_of(rows[0]) if rows else None


class SqliteBatch:
    """An open transaction."""

    synced = True  # perhaps: to look costs little here

    def __init__(self, parts: Parts, head: Head, stamp: Stamp) -> None:
        self._parts = parts
        self._database, self._sql, self._tables, self._known = parts
        self._stamp = stamp
        self._guard_is_open = False
        self.head = head
        self.rows: dict[Key, Row | None] = {}
        self.lines: Sequence[Change] = ()

    def outlook(self) -> SqliteOutlook:
        return SqliteOutlook(self._parts, self._stamp)

    def confirms(self, outlook: Outlook) -> bool:
        expected = Stamp(self._stamp.version, self._stamp.number - 1)
        return isinstance(outlook, SqliteOutlook) and outlook.stamp == expected

    def sync_tables(self) -> SqliteSyncTables:
        return SqliteSyncTables(self._database)

    async def heads(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        return _records(self._parts, keys, self._database.selectmany)

    async def kept(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Kept]:
        rows = [row for name in names for row in self._database.execute(self._sql["kept"], name)]
        return {(row[1], row[0]): kept_of(row) for row in rows}

    async def write(
        self, changes: Sequence[Change], records: Mapping[Key, Record | None], kept: Sequence[Kept] = ()
    ) -> None:
        if kept:
            self._keep(kept)
        if not changes:
            return
        self._database.execute(self._sql["open_guard"])
        self._guard_is_open = True
        lines = [row_of_change(change, position_of(change.revision, change.seq)) for change in changes]
        self._database.executemany(self._sql["append"], lines)
        self.lines = changes
        self.rows = {key: None if record is None else row_of(record) for key, record in records.items()}
        whole = {change.key for change in changes if change.prev_commitment is None or _CLASS in change.changed_fields}
        by_sql: dict[str, list[Row]] = {}
        for key, row in self.rows.items():
            table = self._tables[key.kind]
            if row is None:
                self._database.execute(f"DELETE FROM {table} WHERE namespace = ? AND name = ?", key[1:])
            else:
                sql = _upsert_sql(table) if key in whole else _update_sql(table)
                by_sql.setdefault(sql, []).append(row)
        for sql, rows in by_sql.items():
            self._database.executemany(sql, rows, each=1)

    def _keep(self, kept: Sequence[Kept]) -> None:
        rows = [msgspec.structs.astuple(each) for each in kept]
        self._database.executemany(self._sql["keep"], rows)
        # Twice as many as came: the table shrinks again after a busy day, and no write pays for all of it.
        self._database.execute(self._sql["forget"], (forgotten_before(kept[-1].at), 2 * len(kept)))

    def finish(self) -> None:
        if self._guard_is_open:
            self._database.execute(self._sql["close_guard"])


def _records(
    parts: Parts, keys: Iterable[Key], read: Callable[[str, Sequence[tuple[str, ...]]], Rows]
) -> dict[Key, Record | None]:
    """The records of the keys. What is not known is read, all of a kind at once."""
    found: dict[Key, Record | None] = {}
    asked: dict[str, list[tuple[str, ...]]] = {}
    for key in keys:
        row = parts.known.get(key)
        found[key] = None if row is None else record_of(key.kind, row)
        if row is None:
            asked.setdefault(key.kind, []).append(key[1:])
    for kind, names in asked.items():
        records = [record_of(kind, row) for row in read(select_sql(parts.tables[kind]), names)]
        found.update((record.key, record) for record in records)
    return found


def kept_of(row: tuple[Any, ...]) -> Kept:
    """An answer from the columns of `kept`."""
    key, actor, fingerprint, revision, at, answer = row
    return Kept(key=key, actor=actor, fingerprint=fingerprint, revision=revision, at=at, answer=answer)


def position_of(revision: int, seq: int) -> int:
    """Where a line stands in the log: an integer key, in order of (revision, seq)."""
    return (revision << SEQ_BITS) + seq


@cache
def select_sql(table: str) -> str:
    """The row of a record, by its namespace and name."""
    return f"SELECT {COLUMNS} FROM {table} WHERE namespace = ? AND name = ?"


@cache
def _upsert_sql(table: str) -> str:
    values = ", ".join("?" * len(ENVELOPE))
    updates = ", ".join(
        f"{quoted(name)} = excluded.{quoted(name)}" for name in ENVELOPE if name not in ("namespace", "name")
    )
    return f"INSERT INTO {table} ({COLUMNS}) VALUES ({values}) ON CONFLICT (namespace, name) DO UPDATE SET {updates}"


@cache
def _update_sql(table: str) -> str:
    """Of a row that is there and keeps what it was born with, and its classification: that column has an index, which
    SQLite writes anew whenever it is named here. Takes the row of an upsert, for half its time."""
    updates = ", ".join(
        f"{quoted(name)} = ?{at}" for at, name in enumerate(ENVELOPE, 1) if name not in _LASTING and name != _CLASS
    )
    where = " AND ".join(f"{name} = ?{ENVELOPE.index(name) + 1}" for name in ("namespace", "name"))
    return f"UPDATE {table} SET {updates} WHERE {where}"
