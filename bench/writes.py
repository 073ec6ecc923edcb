"""Durable writes in process: a record and a line of the log, fsynced before the answer; beside bare `executemany`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import apsw

from bench.databases import postgres
from bench.figures import Line, median
from bench.machine import NotHere, say
from bench.ours import BENCH, KIND, document, fill, name_of, on_uvloop, opened
from universal_registry.app import App
from universal_registry.kernel.ids import Key
from universal_registry.storage.rows import row_of, row_of_change

PART = "durable writes in process, 500-byte values"
WRITERS = (1, 16, 256)
NAMES = 1000
_BARS = {16: 0.4, 256: 0.4}


async def rate(app: App, writers: int, seconds: float, numbers: count[int], names: int = NAMES) -> float:
    """Puts a second of that many writers, each with one put outstanding, over `names` records."""
    done = 0
    ending = time.perf_counter() + seconds

    async def write() -> None:
        nonlocal done
        while time.perf_counter() < ending:
            number = next(numbers)
            # A stride over the names, so that few are in one place; each value is new, so none is a no-op.
            await app.service.put(document(name_of(number * 7919 % names), number), actor=BENCH)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(writers)))
    return done / (time.perf_counter() - began)


class Bare:
    """Two plain tables and `executemany` of the very rows that our store writes, a transaction for each batch."""

    def __init__(self, path: Path, record_row: Sequence[Any], change_row: Sequence[Any]) -> None:
        self._record, self._change = tuple(record_row), tuple(change_row)
        self._db = apsw.Connection(str(path))
        self._db.execute("PRAGMA journal_mode=WAL").fetchall()
        self._db.execute("PRAGMA synchronous=FULL")
        # The name stands second in the one, the position first in the other.
        names = ", ".join(f"c{at}" for at in range(len(self._record)))
        self._db.execute(f"CREATE TABLE record (key TEXT PRIMARY KEY, {names})")
        self._db.execute(f"CREATE TABLE log ({', '.join(f'c{at}' for at in range(1, len(self._change)))}, "
                         "position INTEGER PRIMARY KEY)")  # fmt: skip
        self._put = f"INSERT OR REPLACE INTO record VALUES ({', '.join('?' * (len(self._record) + 1))})"
        self._append = f"INSERT INTO log VALUES ({', '.join('?' * len(self._change))})"
        self._number = 0

    async def rate(self, batch: int, seconds: float) -> float:
        """Pairs of rows a second."""
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            numbers = range(self._number, self._number + batch)
            self._number += batch
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(self._put, [(name_of(number * 7919 % NAMES), *self._record) for number in numbers])
            self._db.executemany(self._append, [(*self._change[1:], number) for number in numbers])
            self._db.execute("COMMIT")
            done += batch
        return done / (time.perf_counter() - began)

    async def close(self) -> None:
        self._db.close()


class BarePostgres:
    """The same on PostgreSQL, by asyncpg's `executemany`."""

    def __init__(self, connection: Any, record_row: Sequence[Any], change_row: Sequence[Any]) -> None:
        self._connection = connection
        self._record, self._change = _texts(record_row), _texts(change_row[1:])
        self._number = 0

    @classmethod
    async def on(cls, server: Any, record_row: Sequence[Any], change_row: Sequence[Any]) -> BarePostgres:
        """With tables of its own in the same database."""
        import asyncpg

        bare = cls(await asyncpg.connect(host=str(server.folder), database="bench", user="registry"),
                   record_row, change_row)  # fmt: skip
        for name, key, row in (("record", "text", bare._record), ("log", "bigint", bare._change)):
            columns = ", ".join(f"c{at} text" for at in range(len(row)))
            await bare._connection.execute(f"CREATE TABLE public.bare_{name} (key {key} PRIMARY KEY, {columns})")
        return bare

    async def rate(self, batch: int, seconds: float) -> float:
        """Pairs of rows a second."""
        marks = [", ".join(f"${at}" for at in range(1, len(row) + 2)) for row in (self._record, self._change)]
        updates = ", ".join(f"c{at} = excluded.c{at}" for at in range(len(self._record)))
        put = f"INSERT INTO public.bare_record VALUES ({marks[0]}) ON CONFLICT (key) DO UPDATE SET {updates}"
        append = f"INSERT INTO public.bare_log VALUES ({marks[1]})"
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            numbers = range(self._number, self._number + batch)
            self._number += batch
            async with self._connection.transaction():
                rows = [(name_of(number * 7919 % NAMES), *self._record) for number in numbers]
                await self._connection.executemany(put, rows)
                await self._connection.executemany(append, [(number, *self._change) for number in numbers])
            done += batch
        return done / (time.perf_counter() - began)

    async def close(self) -> None:
        await self._connection.close()


def _texts(row: Sequence[Any]) -> list[str | None]:
    return [None if each is None else each.hex() if isinstance(each, bytes) else str(each) for each in row]


def measure(folder: Path, *, rounds: int, seconds: float) -> list[Line]:
    """Ours and bare in turns; medians."""
    return on_uvloop(_measure(folder, rounds, seconds))


async def _measure(folder: Path, rounds: int, seconds: float) -> list[Line]:
    async with opened(folder / "writes") as app:
        await fill(app, 0, NAMES)
        bare = Bare(folder / "bare.db", *await _rows(app))
        lines = await _turns(app, bare, WRITERS, rounds, seconds)
        await bare.close()
    try:
        with postgres() as server:
            async with opened(folder / "postgres", server.database("bench")) as app:
                await fill(app, 0, NAMES)
                other = await BarePostgres.on(server, *await _rows(app))
                lines += await _turns(app, other, WRITERS[1:], rounds, seconds, engine="PostgreSQL")
                await other.close()
    except NotHere as error:
        say(str(error))
    return lines


async def _rows(app: App) -> tuple[Sequence[Any], Sequence[Any]]:
    """A record and a line of the log, as our store writes them."""
    record = await app.registry.get(Key(KIND, "default", name_of(1)))
    change = (await app.registry.changes(0, 1))[0]
    assert record is not None
    return row_of(record), row_of_change(change, 0)


async def _turns(
    app: App, bare: Bare | BarePostgres, numbers_of: Sequence[int], rounds: int, seconds: float, engine: str = "SQLite"
) -> list[Line]:
    lines, numbers = [], count(10_000)
    for writers in numbers_of:
        say(f"durable writes, {writers} writers, {engine}")
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(await rate(app, writers, seconds, numbers))
            theirs.append(await bare.rate(writers, seconds * 0.7))
        lines.append(
            Line(
                part=PART,
                what=f"{engine}, {writers} writer{'s' if writers > 1 else ''}",
                ours=median(ours),
                unit="writes/s",
                beside=f"bare executemany of {writers}" + (", FULL" if engine == "SQLite" else ""),
                theirs=median(theirs),
                bar=_BARS.get(writers) if engine == "SQLite" else None,
            )
        )
    return lines
