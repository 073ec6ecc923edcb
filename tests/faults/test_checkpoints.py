"""The WAL goes into its file beside the commits: it begins anew, and nothing is lost whatever keeps it from that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from universal_registry.storage import checkpoints
from universal_registry.storage.database import Database, Read

PAGES = 50
PAGE = 4096
NOTE = "x" * 3 * PAGE


class FileOnly(apsw.VFS):
    """The machine's own files, but the database's own may be full while its WAL is not."""

    def __init__(self) -> None:
        self.full = False
        self.refused = 0
        super().__init__("file-of-a-test", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, files: FileOnly, name: Any, flags: list[int]) -> None:
        self._files = files
        self._is_main = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._files.full and self._is_main:
            self._files.refused += 1
            raise apsw.FullError("no space")
        super().xWrite(data, offset)


@pytest.fixture
def files() -> Iterator[FileOnly]:
    made = FileOnly()
    yield made
    made.unregister()


@pytest.fixture
def database(files: FileOnly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(checkpoints, "PAGES", PAGES)
    opened = Database.open(tmp_path / "t.db", "propagation")
    opened.writer.execute("CREATE TABLE notes (text TEXT)")
    yield opened
    files.full = False
    opened.close()


async def write(database: Database, count: int) -> None:
    """So many commits of four pages or more, each with whatever it sets off beside it."""
    for _ in range(count):
        async with database.transaction():
            database.execute("INSERT INTO notes VALUES (?)", (NOTE,))
        if (under_way := database._checkpoints._pass) is not None:
            await asyncio.to_thread(under_way.result)


def wal_pages(database: Database) -> int:
    return Path(f"{database.path}-wal").stat().st_size // PAGE


def stored(database: Database) -> int:
    """How many notes somebody finds who opens the file now."""
    with closing(apsw.Connection(str(database.path))) as other:
        return int(other.execute("SELECT count(*) FROM notes WHERE text = ?", (NOTE,)).fetchall()[0][0])


async def test_the_wal_begins_anew_while_commits_go_on(database: Database) -> None:
    await write(database, 200)
    assert wal_pages(database) < 3 * PAGES, "of 800 pages and more"
    assert database.path.stat().st_size > 600 * PAGE, "they are in the file"
    assert stored(database) == 200


async def test_a_reader_of_an_old_state_keeps_it_and_nothing_is_lost(database: Database) -> None:
    def count(read: Read) -> int:
        return int(read("SELECT count(*) FROM notes")[0][0])

    await write(database, 1)
    async with database.long_read() as read_off_loop:
        assert await read_off_loop(count) == 1
        await write(database, 100)
        assert await read_off_loop(count) == 1
        grown = wal_pages(database)
        assert grown > 400
    await write(database, 100)
    assert wal_pages(database) < grown + 3 * PAGES, "it began anew when the reader had ended"
    assert stored(database) == 201


async def test_what_cannot_be_moved_stays_where_it_is_and_is_moved_later(database: Database, files: FileOnly) -> None:
    files.full = True
    await write(database, 60)
    assert files.refused > 1, "it was tried, and tried again"
    assert stored(database) == 60
    assert database.broken is None
    files.full = False
    await write(database, 60)
    grown = wal_pages(database)
    await write(database, 60)
    assert wal_pages(database) == grown, "it begins anew"
    assert stored(database) == 180
