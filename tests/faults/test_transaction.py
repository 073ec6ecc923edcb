"""A transaction that meets a full disk, a failing fsync or a caller that goes away: whole, or nothing of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from universal_registry.kernel.errors import StorageFull, StorageUnavailable, StoreLocked
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.database import Database
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

BIG = "x" * 20_000


class Disk(apsw.VFS):
    """The machine's own files, with faults to order. `full`: nothing can be written. `gate`: an fsync waits for it."""

    def __init__(self) -> None:
        self.full = False
        self.broken = False
        self.gate: threading.Event | None = None
        self.syncing = threading.Event()
        super().__init__("disk-of-a-test", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.full:
            raise apsw.FullError("no space")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.syncing.set()
        if self._disk.gate is not None:
            self._disk.gate.wait(30)
        if self._disk.broken:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    made = Disk()
    yield made
    made.unregister()


@pytest.fixture
def database(disk: Disk, tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path / "t.db", "propagation")
    opened.writer.execute("CREATE TABLE notes (text TEXT)")
    yield opened
    disk.full = disk.broken = False
    disk.gate = None
    opened.close()


def notes(database: Database) -> list[str]:
    return [text for (text,) in database.read("SELECT substr(text, 1, 20) FROM notes ORDER BY rowid")]


async def note(database: Database, *texts: str) -> None:
    async with database.transaction():
        for text in texts:
            database.execute("INSERT INTO notes VALUES (?)", (text,))


# --- a full disk ------------------------------------------------------------------------------------------------------


async def test_full_while_its_statements_run(database: Database) -> None:
    await note(database, "before")
    pages = database.read("PRAGMA page_count")[0][0]
    database.writer.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StorageFull):
        await note(database, "first", BIG)
    assert database.writer.get_autocommit(), "no transaction is left open"
    database.writer.execute("PRAGMA max_page_count=1000000")
    await note(database, "after")
    assert notes(database) == ["before", "after"]


async def test_full_at_the_commit(database: Database, disk: Disk) -> None:
    await note(database, "before")
    disk.full = True
    for _ in range(3):
        with pytest.raises(StorageFull):
            await note(database, "refused")
        assert database.writer.get_autocommit()
        assert notes(database) == ["before"], "reads go on"
    disk.full = False
    await note(database, "after")
    assert notes(database) == ["before", "after"]
    assert database.broken is None


async def test_full_when_pages_spill_into_the_log_before_the_commit(database: Database, disk: Disk) -> None:
    database.writer.execute("PRAGMA cache_size=5")
    disk.full = True
    with pytest.raises(StorageFull):
        await note(database, *[BIG] * 20)
    assert database.writer.get_autocommit()
    disk.full = False
    await note(database, "after")
    assert notes(database) == ["after"]


# --- an fsync that fails ----------------------------------------------------------------------------------------------


async def test_after_a_failed_fsync_nothing_is_acknowledged_any_more(database: Database, disk: Disk) -> None:
    await note(database, "before")
    disk.broken = True
    with pytest.raises(StorageUnavailable):
        await note(database, "unsure")
    disk.broken = False
    with pytest.raises(StorageUnavailable, match="fsync"):
        await note(database, "after")
    assert "fsync" in (database.broken or "")
    assert notes(database)[0] == "before"


# --- a caller that goes away ------------------------------------------------------------------------------------------


async def at_the_fsync(disk: Disk, database: Database, text: str) -> asyncio.Task[None]:
    """A transaction that is in the middle of its COMMIT, and stays there until the gate opens."""
    disk.gate = threading.Event()
    disk.syncing.clear()
    task = asyncio.get_running_loop().create_task(note(database, text))
    assert await asyncio.to_thread(disk.syncing.wait, 30)
    return task


async def test_cancelled_while_it_commits(database: Database, disk: Disk) -> None:
    """The commit ends first: nothing touches its connection meanwhile, and nobody else's transaction begins."""
    task = await at_the_fsync(disk, database, "cancelled")
    next_one = asyncio.get_running_loop().create_task(note(database, "next"))
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    assert disk.gate is not None
    disk.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await next_one
    assert notes(database) == ["cancelled", "next"], "what was committed stands"


async def test_cancelled_while_a_commit_fails(database: Database, disk: Disk) -> None:
    task = await at_the_fsync(disk, database, "cancelled")
    task.cancel()
    disk.broken = True
    assert disk.gate is not None
    disk.gate.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert isinstance(raised.value.__cause__, StorageUnavailable)
    assert database.writer.get_autocommit()
    assert "fsync" in (database.broken or "")


async def test_cancelled_before_the_commit(database: Database) -> None:
    never = asyncio.Event()

    async def work() -> None:
        async with database.transaction():
            database.execute("INSERT INTO notes VALUES ('half')")
            never.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(work())
    await never.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await note(database, "after")
    assert notes(database) == ["after"]


# --- the group writer on such a disk ----------------------------------------------------------------------------------


@pytest.fixture
async def service(disk: Disk, tmp_path: Path) -> Any:
    catalogue, world = load_catalogue(), SystemWorld()
    registry = SqliteRegistry.open(tmp_path / "registry.db", catalogue, world)
    writer = GroupWriter(registry, catalogue)
    yield RegistryService(
        catalogue=catalogue,
        sealer=Sealer(Keyring.of(new_key(world)), bytes(32)),
        writer=writer,
        records=registry,
        log=registry,
        world=world,
    )
    disk.full = False
    await writer.close()
    registry.database.close()


def puts(service: RegistryService, count: int) -> list[Any]:
    actor = Actor("uid:1000", admin=True)
    documents = [{"kind": "alias", "name": f"a{each}", "spec": {"command": "x"}} for each in range(count)]
    return [service.put(document, actor=actor) for document in documents]


async def test_each_caller_of_a_group_hears_of_a_full_disk_and_no_revision_is_used_up(
    service: RegistryService, disk: Disk
) -> None:
    disk.full = True
    answers = await asyncio.gather(*puts(service, 20), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageFull] * 20
    disk.full = False
    written = await asyncio.gather(*puts(service, 20))
    assert sorted(each.revision for each in written) == list(range(1, 21))


async def test_a_store_that_another_process_has_locked_costs_a_group_one_wait(
    service: RegistryService, tmp_path: Path
) -> None:
    """Not one for each request: the wait holds up everybody."""
    store = service.records
    assert isinstance(store, SqliteRegistry)
    store.database.writer.set_busy_timeout(200)
    other = apsw.Connection(str(tmp_path / "registry.db"))
    other.execute("BEGIN IMMEDIATE")
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*puts(service, 20), return_exceptions=True)
    took = asyncio.get_running_loop().time() - began
    other.execute("ROLLBACK")
    other.close()
    assert [type(answer) for answer in answers] == [StoreLocked] * 20
    assert took < 5 * 0.2, took
    assert len(await asyncio.gather(*puts(service, 5))) == 5
