"""A reader of one state who does not read on: it is let go, so that the store does not grow for nobody."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pgserver
import pytest
from watching import ENGINES, OPERATOR, Watched

from universal_registry.api.watcher import Asked, Start, Watcher
from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.storage import held
from universal_registry.storage import postgres as pg

NUMBERS = count()


async def filled(watched: Watched) -> Watcher:
    """A watcher that has read the first of three pages of a list."""
    documents = [{"op": "put", "kind": "alias", "name": f"n{at:03}", "spec": {"command": "v"}} for at in range(500)]
    await watched.service.batch(documents, actor=OPERATOR)
    watcher = await watched.hub.open(Asked(start=Start.LIST))
    (frame,) = await watcher.next()
    assert len(orjson.loads(frame.data)["records"]) == 200
    return watcher


async def is_broken(watcher: Watcher) -> None:
    with pytest.raises(StorageUnavailable):
        await watcher.next()
    assert orjson.loads(watcher.broken("late").data) == {"type": "end", "why": "late", "resync": True}
    await watcher.close()


def folds(watched: Watched) -> bool:
    """Whether the whole WAL can be folded into the file: nobody keeps an old state."""
    database: Any = watched.service.records.database  # type: ignore[attr-defined]
    ((busy, lines, folded),) = database.writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return not busy and lines == folded


async def test_sqlite_who_reads_no_further_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with ENGINES["sqlite"](tmp_path) as watched:
        kept = await filled(watched)
        await watched.put("later")
        assert not folds(watched)
        await kept.close()
        monkeypatch.setattr(held, "IDLE_SECONDS", 0.05)
        watcher = await filled(watched)
        await watched.put("later", "newer than what it reads")
        assert not folds(watched)
        async with asyncio.timeout(20):
            while not folds(watched):
                await watched.put("later", str(next(NUMBERS)))
        await is_broken(watcher)


async def test_sqlite_who_makes_the_log_grow_too_much_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(held, "MOST_GROWTH", 1 << 20)
    monkeypatch.setattr(held, "_LOOKS", 10_000)
    async with ENGINES["sqlite"](tmp_path) as watched:
        watcher = await filled(watched)
        await watched.put("later")
        async with asyncio.timeout(20):
            while not folds(watched):
                await watched.put("later", f"{next(NUMBERS)}" + "x" * 50_000)
        await is_broken(watcher)


async def test_sqlite_who_reads_on_reads_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(held, "_LOOKS", 10_000)
    async with ENGINES["sqlite"](tmp_path) as watched:
        watcher = await filled(watched)
        revision = (await watched.service.log.head()).revision
        for at in range(20):
            await watched.put("later", str(at))
        frames = [*await watcher.next(), *await watcher.next()]
        assert sum(len(orjson.loads(frame.data).get("records", ())) for frame in frames) == 300
        assert frames[-1].cursor is not None
        assert frames[-1].cursor.revision == revision
        await watcher.close()
        async with asyncio.timeout(20):
            while not folds(watched):
                await watched.put("later", str(next(NUMBERS)))


async def test_postgres_who_reads_no_further_is_let_go(
    postgres: pgserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pg, "_LONG_READ_SECONDS", 0.05)
    async with ENGINES["postgres"](tmp_path) as watched:
        watcher = await filled(watched)
        database: Any = watched.service.records.database  # type: ignore[attr-defined]
        kept = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
        async with asyncio.timeout(20):
            while await database.fetch(kept):
                await watched.put("later", str(next(NUMBERS)))
        await is_broken(watcher)
