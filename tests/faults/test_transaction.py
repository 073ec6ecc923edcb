"""A transaction that meets a full disk, a failing fsync or a caller that goes away: whole, or nothing of it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from universal_registry.kernel.errors import PreconditionFailed, StorageFull, StorageUnavailable, StoreLocked
from universal_registry.kernel.ids import Key
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.chain import GENESIS, verify
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService, Written
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.batch_sqlite import SqliteBatch, SqliteOutlook
from universal_registry.storage.database import Database
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

BIG = "x" * 20_000
ME = Actor("uid:1000", admin=True)


class Disk(apsw.VFS):
    """The machine's own files, with faults to order. `full`: nothing can be written. `gate`: an fsync waits for it;
    `held`: a write does."""

    def __init__(self) -> None:
        self.full = False
        self.broken = False
        self.gate: threading.Event | None = None
        self.held: threading.Event | None = None
        self.writing = threading.Event()
        self.syncing = threading.Event()
        super().__init__("disk-of-a-test", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.held is not None:
            self._disk.writing.set()
            self._disk.held.wait(30)
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
    documents = [{"kind": "alias", "name": f"a{each}", "spec": {"command": "x"}} for each in range(count)]
    return [service.put(document, actor=ME) for document in documents]


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


# --- a group that was decided while the one before it was being committed ---------------------------------------------


def put(service: RegistryService, command: str, **more: Any) -> asyncio.Task[Written]:
    document = {"kind": "alias", "name": "gs", "spec": {"command": command}}
    return asyncio.ensure_future(service.put(document, actor=ME, **more))


async def decided_ahead(service: RegistryService, requests: int) -> None:
    """Until the writer has decided so many while it commits."""
    writer = service._writer
    assert isinstance(writer, GroupWriter)
    async with asyncio.timeout(30):
        for _ in itertools.count():
            if writer._ahead is not None and writer._ahead.requests == requests:
                return
            await asyncio.sleep(0)  # lets the callers come as far as the writer; nothing here waits for time


async def test_what_is_decided_ahead_sees_what_is_being_committed(service: RegistryService, disk: Disk) -> None:
    await put(service, "zero")
    disk.held = threading.Event()
    first = put(service, "one")
    await asyncio.to_thread(disk.writing.wait, 30)
    conditional, refused = put(service, "two", if_revision=2), put(service, "three", if_revision=2)
    same = put(service, "two")
    await decided_ahead(service, 3)
    assert not any(task.done() for task in (first, conditional, refused, same)), "acknowledged only after its own fsync"
    disk.held.set()
    assert [(await task).revision for task in (first, conditional, same)] == [2, 3, 3]
    with pytest.raises(PreconditionFailed, match="is at revision 3"):
        await refused
    lines = await service.log.history(Key("alias", "default", "gs"), 10)
    assert [(line.revision, line.generation) for line in lines] == [(3, 3), (2, 2), (1, 1)]


async def test_what_was_decided_ahead_of_a_commit_that_fails_is_decided_again(
    service: RegistryService, disk: Disk
) -> None:
    disk.held, disk.full = threading.Event(), True
    first = put(service, "one")
    await asyncio.to_thread(disk.writing.wait, 30)
    conditional, plain = put(service, "two", if_revision=1), put(service, "three")
    await decided_ahead(service, 2)
    first.add_done_callback(lambda _: setattr(disk, "full", False))
    disk.held.set()
    with pytest.raises(StorageFull):
        await first
    answers = await asyncio.gather(conditional, plain, return_exceptions=True)
    # The group behind it may meet the full disk too; a retry settles it.
    assert isinstance(answers[0], PreconditionFailed | StorageFull)
    written = answers[1] if isinstance(answers[1], Written) else await put(service, "three")
    assert (written.revision, written.results[0].record.generation) == (1, 1)
    assert await check_log(service) == 1


async def test_another_process_that_wrote_meanwhile_is_noticed(
    service: RegistryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(service, "one")
    edit(tmp_path / "registry.db", revision=99)
    with pytest.raises(PreconditionFailed, match="at revision 99"):
        await put(service, "two", if_revision=1)
    await put(service, "two", if_revision=99)
    edit(tmp_path / "registry.db", revision=77)
    monkeypatch.setattr(SqliteBatch, "confirms", lambda *_: True)
    assert (await put(service, "three", if_revision=2)).revision == 3, "without the check it is not"


async def test_a_transaction_beside_the_writer_is_noticed(service: RegistryService) -> None:
    store = service.records
    assert isinstance(store, SqliteRegistry)
    await put(service, "one")
    async with store.database.transaction():
        store.database.execute("INSERT INTO write_guard (open) VALUES (1)")
        store.database.execute("UPDATE aliases SET revision = 99")
        store.database.execute("DELETE FROM write_guard")
        store.changed_beside({})
    with pytest.raises(PreconditionFailed, match="at revision 99"):
        await put(service, "two", if_revision=1)


async def test_a_read_that_fails_ahead_costs_nobody_anything(
    service: RegistryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(service, "one")

    def unreadable(*_: object) -> None:
        raise StorageUnavailable("the disk says no")

    monkeypatch.setattr(SqliteOutlook, "records", unreadable)
    assert (await put(service, "two")).revision == 2


def edit(path: Path, revision: int) -> None:
    """As somebody does with SQLite's shell."""
    other = apsw.Connection(str(path))
    with other:
        other.execute("INSERT INTO write_guard (open) VALUES (1)")
        other.execute("UPDATE aliases SET revision = ?", (revision,))
        other.execute("DELETE FROM write_guard")
    other.close()


async def check_log(service: RegistryService) -> int:
    """The number of lines, the chain proved."""
    lines = await service.log.changes(0, 1000)
    verify(GENESIS, lines, 1)
    return len(lines)
