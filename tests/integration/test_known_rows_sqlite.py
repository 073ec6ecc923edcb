"""The writer does not read what it has just written: that must never be seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from universal_registry.app import App, open_app
from universal_registry.kernel.errors import PreconditionFailed
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.service import Actor

ME = Actor("uid:0", admin=True)
KEY = Key("alias", "default", "gs")


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    opened = await open_app(Settings(home=tmp_path), world=SystemWorld(), create=True)
    yield opened
    await opened.close()


async def put(app: App, command: str) -> int:
    spec = {"command": command}
    return (await app.service.put({"kind": "alias", "name": "gs", "spec": spec}, actor=ME)).revision


async def known(app: App) -> str | None:
    """The command that the writer decides by."""
    async with app.registry.batch() as batch:
        record = (await batch.heads([KEY]))[KEY]
    return record and record.spec["command"]


class Trouble(Exception):
    pass


async def test_what_another_connection_writes_is_seen(app: App) -> None:
    await put(app, "git status")
    assert await known(app) == "git status"
    other = apsw.Connection(str(app.settings.home / ".universal_registry.db"))
    with other:
        other.execute("INSERT INTO write_guard (open) VALUES (1)")
        other.execute("""UPDATE aliases SET spec = '{"command":"git stash"}', revision = 99""")
        other.execute("DELETE FROM write_guard")
    other.close()
    assert await known(app) == "git stash"
    with pytest.raises(PreconditionFailed, match="at revision 99"):
        await app.service.delete(KEY, actor=ME, if_revision=1)


async def test_what_was_rolled_back_is_not_known(app: App) -> None:
    await put(app, "git status")
    record = await app.service.get(KEY)
    line = (await app.registry.changes(0, 1))[0]

    async def write_and_fail() -> None:
        async with app.registry.batch() as batch:
            await batch.write([replace(line, revision=2)], {KEY: replace(record, spec={"command": "lost"})})
            raise Trouble

    with pytest.raises(Trouble):
        await write_and_fail()
    assert await known(app) == "git status"


async def test_a_commit_whose_caller_is_cancelled_is_seen(app: App) -> None:
    await put(app, "one")
    record = await app.service.get(KEY)
    line = (await app.registry.changes(0, 1))[0]
    written = asyncio.Event()

    async def write() -> None:
        async with app.registry.batch() as batch:
            await batch.write([replace(line, revision=2)], {KEY: replace(record, spec={"command": "two"})})
            written.set()

    task = asyncio.get_running_loop().create_task(write())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stored = (await app.service.get(KEY)).spec["command"]
    assert await known(app) == stored


async def test_a_caller_who_changes_what_he_sent_changes_nothing(app: App) -> None:
    spec = {"command": "git status", "shell": "zsh"}
    await app.service.put({"kind": "alias", "name": "gs", "spec": spec}, actor=ME)
    spec["shell"] = "fish"
    written = await app.service.merge({"kind": "alias", "name": "gs", "spec": {"command": "git stash"}}, actor=ME)
    assert written.results[0].record is not None
    assert written.results[0].record.spec == {"command": "git stash", "shell": "zsh"}


async def test_a_deleted_record_is_gone_for_the_writer_too(app: App) -> None:
    await put(app, "git status")
    await app.service.delete(KEY, actor=ME)
    assert await known(app) is None
    await put(app, "git status")
    assert (await app.service.get(KEY)).generation == 1


async def test_the_newest_lines_are_told_as_the_log_has_them(app: App) -> None:
    """What is known of them, and what a connection that knows nothing reads, after each limit."""
    for number in range(4):
        await put(app, f"git {number}")
    operations = [{"op": "put", "kind": "alias", "name": f"a{at}", "spec": {"command": "ls"}} for at in range(3)]
    await app.service.batch(operations, actor=ME)
    reader = await open_app(Settings(home=app.settings.home), world=SystemWorld(), read_only=True)
    try:
        for after in range(7):
            for limit in (1, 2, 3, 100):
                for upto in (None, 2, 5):
                    told = await app.registry.changes(after, limit, upto=upto)
                    assert told == await reader.registry.changes(after, limit, upto=upto)
    finally:
        await reader.close()


async def test_lines_that_another_connection_wrote_are_told(app: App) -> None:
    await put(app, "git status")
    first = (await app.registry.changes(0, 10))[0]
    other = apsw.Connection(str(app.settings.home / ".universal_registry.db"))
    with other:
        other.execute("INSERT INTO write_guard (open) VALUES (1)")
        other.execute(
            "INSERT INTO changes SELECT position + (1 << 20), 2, seq, op, kind, namespace, name, uid, generation, "
            "commitment, prev_commitment, changed_fields, actor, txn_id, message, at, zeroblob(32), body FROM changes"
        )
        other.execute("DELETE FROM write_guard")
    other.close()
    assert await app.registry.changes(0, 10) == [first, replace(first, revision=2, hash=bytes(32))]


async def test_lines_that_were_sealed_anew_are_told(app: App) -> None:
    await put(app, "git status")
    assert [line.body for line in await app.registry.changes(0, 10)] != [b"{}"]
    async with app.registry.database.transaction():
        app.registry.database.execute("INSERT INTO write_guard (open) VALUES (1)")
        app.registry.database.execute("UPDATE changes SET body = '{}'")
        app.registry.database.execute("DELETE FROM write_guard")
        app.registry.changed_beside({})
    assert [line.body for line in await app.registry.changes(0, 10)] == [b"{}"]
