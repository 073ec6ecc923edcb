"""A batch of writes on PostgreSQL: what its open transaction can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.log.cursor import Head
from universal_registry.registry.once import Kept, forgotten_before
from universal_registry.registry.record import Record
from universal_registry.registry.words import ENVELOPE
from universal_registry.storage.ddl import quoted
from universal_registry.storage.known_rows import KnownRows, Row
from universal_registry.storage.postgres import PgConnection
from universal_registry.storage.rows import record_of, row_of, row_of_change
from universal_registry.storage.sqlfiles import load_queries
from universal_registry.storage.sync_postgres import PgSyncTables

if TYPE_CHECKING:
    from universal_registry.storage.writer import Outlook

_SQL = load_queries("postgres/registry.sql")
_COLUMNS = ", ".join(quoted(column) for column in ENVELOPE)
_LINE_COLUMNS = 17
_SPEC = ENVELOPE.index("spec")
_SEAL = '"$sealed"'


class PostgresOutlook:
    """Outlook: the rows written last, and nothing else, since for anything else the server must be waited for."""

    def __init__(self, known: KnownRows, batch: PostgresBatch) -> None:
        self._known = known
        self.batch = batch

    def records(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        """As Outlook says; StorageUnavailable also for a key that is not among them."""
        return {key: record_of(key.kind, self._row(key)) for key in keys}

    def _row(self, key: Key) -> Row:
        row = self._known.get(key)
        if row is None:
            raise StorageUnavailable(f"{key} must be asked for")
        return row

    def kept(self, name: tuple[str, str]) -> Kept | None:
        raise StorageUnavailable(f"what {name[0]} was answered must be asked for")


class PostgresBatch:
    """An open transaction."""

    def __init__(
        self,
        connection: PgConnection,
        tables: Mapping[str, str],
        plurals: Mapping[str, str],
        head: Head,
        known: KnownRows,
        *,
        synced: bool,
    ) -> None:
        self.synced = synced
        self._known = known
        self.rows: dict[Key, Row | None] = {}
        self.sealed = False
        """Whether a record that it writes holds a seal. Another daemon may make that anew, and no line says so."""
        self._connection = connection
        self._tables = tables
        self._plurals = plurals
        self.head = head
        self.written: Head | None = None

    def sync_tables(self) -> PgSyncTables:
        return PgSyncTables(self._connection)

    def outlook(self) -> PostgresOutlook:
        return PostgresOutlook(self._known, self)

    def confirms(self, outlook: Outlook) -> bool:
        # The caller has compared the heads: no line was written but by the batch before, by whichever daemon.
        return isinstance(outlook, PostgresOutlook) and not outlook.batch.sealed

    async def heads(self, keys: Iterable[Key]) -> dict[Key, Record | None]:
        found: dict[Key, Record | None] = dict.fromkeys(keys)
        kinds: dict[str, list[Key]] = {}
        for key in found:
            row = self._known.get(key)
            if row is None:
                kinds.setdefault(key.kind, []).append(key)
            else:
                found[key] = record_of(key.kind, row)
        for kind, wanted in kinds.items():
            # LATERAL and LIMIT: one step in the index for each key, whatever a cached plan believes of the table.
            sql = (
                f"SELECT r.* FROM unnest($1::text[], $2::text[]) AS k (ns, n) CROSS JOIN LATERAL (SELECT {_COLUMNS} "
                f"FROM {self._tables[kind]} WHERE namespace = k.ns AND name = k.n LIMIT 1) AS r"
            )
            rows = await self._connection.fetch(sql, [key.namespace for key in wanted], [key.name for key in wanted])
            found.update((record.key, record) for record in (record_of(kind, row) for row in rows))
        return found

    async def kept(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Kept]:
        rows = await self._connection.fetch(_SQL["kept"], [actor for actor, _ in names], [key for _, key in names])
        return {(row[1], row[0]): kept_of(row) for row in rows}

    async def write(
        self, changes: Sequence[Change], records: Mapping[Key, Record | None], kept: Sequence[Kept] = ()
    ) -> None:
        if kept:
            await self._keep(kept)
        if not changes:
            return
        self.written = Head(self.head.incarnation, changes[-1].revision, changes[-1].hash)
        lines = [row_of_change(change, 0)[1:] for change in changes]
        puts, deletes = [], []
        for key, record in sorted(records.items()):
            table = self._plurals[key.kind]
            if record is None:
                deletes.append((table, key.namespace, key.name))
                self.rows[key] = None
            else:
                row = row_of(record)
                puts.append((table, *row))
                self.rows[key] = row if _SEAL not in row[_SPEC] else None
                self.sealed = self.sealed or self.rows[key] is None
        await self._connection.execute(
            _SQL["commit"],
            *(self.head.revision, self.written.revision, self.written.hash),
            *_arrays(lines, _LINE_COLUMNS),
            *_arrays(puts, 1 + len(ENVELOPE)),
            *_arrays(deletes, 3),
        )

    async def _keep(self, kept: Sequence[Kept]) -> None:
        columns = _arrays([msgspec.structs.astuple(each) for each in kept], len(Kept.__struct_fields__))
        await self._connection.execute(_SQL["keep"], *columns)
        # Twice as many as came: the table shrinks again after a busy day, and no write pays for all of it.
        await self._connection.execute(_SQL["forget"], forgotten_before(kept[-1].at), 2 * len(kept))


def kept_of(row: Any) -> Kept:
    """A row of the query kept."""
    return Kept(key=row[0], actor=row[1], fingerprint=row[2], revision=row[3], at=row[4], answer=row[5])


def _arrays(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as one array for each column."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
