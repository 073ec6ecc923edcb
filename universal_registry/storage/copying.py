"""What a whole registry is, row by row, whatever the engine: for backups, restoring, and moving to another engine.

A source reads both stores at one consistent point and hands out batches of rows; a sink takes them into empty stores.
Both find tables and columns in the database itself, so that a new migration needs nothing here, unless the engines
differ in it: then it belongs into the sets below, and a test says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from universal_registry.kernel.errors import Corrupt

Row = tuple[Any, ...]
INCARNATION = "incarnation"
STORES = ("registry", "propagation")
NOT_COPIED = {
    "sqlite": frozenset({"registry.write_guard"}),
    # Of daemons that run, or derived from what is copied.
    "postgres": frozenset(
        {
            "registry.migrations",
            "registry.head",
            "registry.namespaces",
            "propagation.migrations",
            "propagation.writers",
            "propagation.daemons",
        }
    ),
}
TECHNICAL = frozenset({"propagation.deliveries.id", "propagation.lanes.place"})
"""Columns that one engine alone has, and fills by itself."""
_MOST_ROWS = 500
_MOST_BYTES = 1 << 20
_SIZE = 1 << 256


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Rows of one table. `table`: `store.name`. A table without rows has one empty batch."""

    table: str
    columns: tuple[str, ...]
    rows: list[Row]


class Summary(msgspec.Struct, frozen=True):
    """How many rows, and their digest: of the values of all columns but the technical ones, whatever the order."""

    rows: int = 0
    digest: str = ""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Where a source stands. `schema`: the number of the newest migration of each store. `hash`: of the chain, hex.
    `keys`: the ids of all keys that something in it may be sealed with, as far as the store knows them."""

    engine: str
    incarnation: str
    revision: int
    hash: str
    schema: dict[str, int]
    key_fingerprint: str | None
    keys: tuple[str, ...] = ()


class Tables:
    """Adds up digests, batch by batch: two registries with the same rows have equal summaries, on either engine."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int]] = {}

    def add(self, batch: Batch) -> None:
        """Count these rows in."""
        count, total = self._sums.get(batch.table, (0, 0))
        order = [
            place
            for place, column in sorted(enumerate(batch.columns), key=lambda each: each[1])
            if f"{batch.table}.{column}" not in TECHNICAL
        ]
        for row in batch.rows:
            text = msgspec.msgpack.encode([row[place] for place in order])
            total = (total + int.from_bytes(sha256(text).digest())) % _SIZE
        self._sums[batch.table] = (count + len(batch.rows), total)

    def summaries(self) -> dict[str, Summary]:
        """By table."""
        return {table: Summary(count, f"{total:064x}") for table, (count, total) in sorted(self._sums.items())}


class Source(Protocol):
    """Both stores at one point: the propagation store may be behind the log there, and is never ahead of it."""

    point: Point

    def batches(self) -> AsyncIterator[Batch]:
        """All rows of all tables that are copied."""
        ...


class Sink(Protocol):
    """Both stores, empty, inside a transaction that is committed at the end of the block, or not at all."""

    async def take(self, batch: Batch) -> None:
        """Write these rows. Raises Corrupt for a table or column that there is no place for."""
        ...

    def batches(self) -> AsyncIterator[Batch]:
        """What was written."""
        ...

    async def name(self, point: Point, incarnation: str) -> None:
        """Say what the log is. With an incarnation other than the point's, the history is one that was rolled back."""
        ...


class Sinks(Protocol):
    """Where a registry can be put."""

    def begin(self, point: Point) -> AbstractAsyncContextManager[Sink]: ...


def check_columns(table: str, given: Iterable[str], has: Iterable[str]) -> tuple[str, ...]:
    """The columns that are written, in the order in which they are given. Raises Corrupt when the two differ in more
    than the technical ones."""
    given, there = tuple(given), set(has)
    wrong = {each for each in there.symmetric_difference(given) if f"{table}.{each}" not in TECHNICAL}
    if wrong:
        raise Corrupt(f"the table {table} differs in {', '.join(sorted(wrong))}", hint="use the version that wrote it")
    return tuple(column for column in given if column in there)


def in_batches(table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> Iterator[Batch]:
    """Rows in batches of a bounded size; one empty batch when there are none."""
    some: list[Row] = []
    size, told = 0, False
    for row in rows:
        some.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(some) >= _MOST_ROWS or size >= _MOST_BYTES:
            yield Batch(table, columns, some)
            some, size, told = [], 0, True
    if some or not told:
        yield Batch(table, columns, some)


def compare(wanted: Mapping[str, Summary], found: Mapping[str, Summary]) -> None:
    """Raises Corrupt naming the first table whose rows are not the same. A table that is not there has no rows."""
    for table in sorted(wanted.keys() | found.keys()):
        before, after = wanted.get(table, Summary()), found.get(table, Summary())
        if before != after and (before.rows or after.rows):
            raise Corrupt(
                f"{table} is not the same: {before.rows} rows before, {after.rows} after, or other values",
                hint="nothing was kept of it; report this",
                table=table,
            )


async def summed(batches: AsyncIterator[Batch]) -> dict[str, Summary]:
    """The summaries of all that a source hands out."""
    tables = Tables()
    async for batch in batches:
        tables.add(batch)
    return tables.summaries()


def carried(engine: str, tables: Sequence[str]) -> list[str]:
    """Those of the tables that are copied, the ones that others refer to first."""
    first = ("propagation.lanes", "propagation.sessions")
    copied = [table for table in tables if table not in NOT_COPIED[engine]]
    return sorted(copied, key=lambda table: (table not in first, table))
