"""Backups, restoring and moving, whatever the engine below: add yours to ENGINES."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.app import App, open_app
from universal_registry.care.archive import read_header
from universal_registry.care.backup import check_backup, make_backup
from universal_registry.care.drill import drill
from universal_registry.care.engines import source_of
from universal_registry.care.moving import move_to_postgres
from universal_registry.care.restore import restore
from universal_registry.kernel.errors import Conflict, Corrupt, CursorMismatch, Invalid, KeyMismatch, StoreLocked
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.check import check_registry
from universal_registry.registry.key_check import check_seals
from universal_registry.registry.service import Actor
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.copying import compare, summed
from universal_registry.storage.keyfile import key_files

WORLD = SystemWorld()
ACTOR = Actor("uid:1000", admin=True)
WRITES_FOR_EACH = 20
"""How far the load goes on during a backup: its log is read again in each of them, so it must not run away."""
Make = Callable[[str], Settings]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Settings of a new place."""

    def sqlite(name: str) -> Settings:
        return Settings(home=tmp_path / name, listen="")

    def postgres(name: str) -> Settings:
        server: pgserver.Server = request.getfixturevalue("postgres")
        return Settings(home=tmp_path / name, listen="", database=server.database(f"backup_{name}"))

    return sqlite if request.param == "sqlite" else postgres


async def opened(settings: Settings, **how: Any) -> App:
    return await open_app(settings, world=WORLD, **how)


async def filled(settings: Settings, count: int = 30) -> App:
    """A registry with records of several kinds, secrets, deleted ones, targets with lanes, and things to send."""
    app = await opened(settings, create=True)
    for number in range(count):
        await put(app, "alias", f"a{number % 20}", {"command": f"echo {number}"})
    await put(app, "secret", "token", {"value": "canary-of-this-test"})
    await app.service.delete(Key("alias", "default", "a1"), actor=ACTOR)
    await put(app, "endpoint", "mine", {"url": "http://127.0.0.1:9/x"})
    return app


async def put(app: App, kind: str, name: str, spec: dict[str, Any]) -> None:
    await app.service.put({"kind": kind, "name": name, "spec": spec}, actor=ACTOR)


def ring_of(settings: Settings) -> Keyring:
    return key_files(settings, WORLD).load()


async def sums(settings: Settings) -> dict[str, Any]:
    async with source_of(settings, WORLD) as source:
        return await summed(source.batches())


async def sound(settings: Settings) -> int:
    """Chain, records and seals agree; how many values are sealed."""
    app = await opened(settings, read_only=True)
    try:
        await check_registry(app.service.records, app.service.log, app.service.event_commitment)
        found = await check_seals(app.service, app.sealer, app.stores.keys)
        assert not found.wrong
        return sum(found.opened.values())
    finally:
        await app.close()


async def test_a_backup_comes_back_as_it_was_under_another_name(make: Make, tmp_path: Path) -> None:
    before, after = make("before"), make("after")
    app = await filled(before)
    cursor = (await app.registry.head()).cursor
    made = await make_backup(before, ring_of(before), WORLD, tmp_path / "one.backup")
    await app.close()
    assert b"canary-of-this-test" not in made.path.read_bytes()
    assert made.path.stat().st_mode & 0o777 == 0o600
    header, _ = check_backup(made.path, ring_of(before))
    assert header.point.revision == cursor.revision
    done = await restore(made.path, after, WORLD, keys=ring_of(before))
    assert done.incarnation != cursor.incarnation
    assert await sound(after) > 0
    again = await opened(after)
    try:
        head = await again.registry.head()
        assert (head.revision, head.cursor.hash8) == (cursor.revision, cursor.hash8)
        with pytest.raises(CursorMismatch):
            await again.registry.check_cursor(cursor)
        await put(again, "alias", "new", {"command": "true"})
        assert (await again.registry.head()).revision == cursor.revision + 1
    finally:
        await again.close()


async def test_backups_under_load_are_each_of_one_moment(make: Make, tmp_path: Path) -> None:
    before = make("before")
    app = await filled(before, 5)
    ring, stop, to_write = ring_of(before), asyncio.Event(), asyncio.Semaphore(0)

    async def load() -> None:
        for number in itertools.count():
            await to_write.acquire()
            if stop.is_set():
                return
            await put(app, "alias", f"n{number % 50}", {"command": f"echo {number}"})
            await asyncio.sleep(0)

    busy = asyncio.get_running_loop().create_task(load())
    revisions = []
    try:
        for number in range(100 if before.database is None else 10):
            for _ in range(WRITES_FOR_EACH):
                to_write.release()
            made = await make_backup(before, ring, WORLD, tmp_path / f"{number}.backup")
            revisions.append(made.header.point.revision)
    finally:
        stop.set()
        to_write.release()
        await busy
        await app.close()
    assert len(set(revisions)) > len(revisions) // 2, "there was load"
    for number in range(len(revisions)):
        path = tmp_path / f"{number}.backup"
        home = Settings(home=tmp_path / "restored" / str(number), listen="")
        await restore(path, home, WORLD, keys=ring)
        assert {name: each for name, each in (await sums(home)).items() if name == "registry.changes"} == {
            name: each for name, each in check_backup(path, ring)[1].items() if name == "registry.changes"
        }
        if number % 10 == 0:
            await sound(home)


async def test_nothing_is_restored_over_anything_or_with_a_foreign_key(make: Make, tmp_path: Path) -> None:
    before, after = make("before"), make("after")
    app = await filled(before, 3)
    path = tmp_path / "one.backup"
    await make_backup(before, ring_of(before), WORLD, path)
    with pytest.raises(Conflict, match="already"):
        await make_backup(before, ring_of(before), WORLD, path)
    with pytest.raises((StoreLocked, Conflict)):
        await restore(path, before, WORLD, replace=True)
    await app.close()
    with pytest.raises(Conflict, match="already"):
        await restore(path, before, WORLD)
    with pytest.raises(KeyMismatch):
        await restore(path, after, WORLD, keys=Keyring.of(new_key(WORLD)))
    assert not after.home.exists()
    wanted = await sums(before)
    done = await restore(path, before, WORLD, replace=True)
    assert "before" in done.aside
    found = await sums(before)
    compare({"registry.changes": wanted["registry.changes"]}, {"registry.changes": found["registry.changes"]})


async def test_a_damaged_backup_is_refused_and_nothing_is_kept_of_it(make: Make, tmp_path: Path) -> None:
    before, after = make("before"), make("after")
    app = await filled(before, 3)
    ring = ring_of(before)
    made = await make_backup(before, ring, WORLD, tmp_path / "one.backup")
    await app.close()
    whole = made.path.read_bytes()
    damaged = tmp_path / "damaged.backup"
    for text in (whole[:-1], whole[: len(whole) // 2], whole + b"x", whole[:-40] + b"\0" + whole[-39:]):
        damaged.write_bytes(text)
        with pytest.raises(Corrupt):
            check_backup(damaged, ring)
        with pytest.raises(Corrupt):
            await restore(damaged, after, WORLD, keys=ring)
        assert not Places(after.home).registry_db.exists()
        assert not list(after.home.glob(".restore-*"))
    damaged.write_bytes(b"something else")
    with pytest.raises(Invalid):
        read_header(damaged)
    await restore(made.path, after, WORLD, keys=ring)


async def test_a_drill_shows_that_it_comes_back(make: Make, tmp_path: Path) -> None:
    before = make("before")
    app = await filled(before, 5)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    async def opener(settings: Settings) -> App:
        return await opened(settings, read_only=settings.home == before.home)

    try:
        steps = [step async for step in drill(before, WORLD, ring_of(before), scratch, opener)]
    finally:
        await app.close()
    assert [step.name for step in steps] == ["backup", "read", "restore", "chain", "compare", "open", "rotate"]


async def test_a_registry_moves_to_postgresql_and_its_readers_go_on(postgres: pgserver.Server, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    app = await filled(here)
    cursor = (await app.registry.head()).cursor
    await app.close()
    wanted = await sums(here)
    database = postgres.database("moved")
    done = await move_to_postgres(here, database, WORLD)
    assert not done.again
    assert not Places(here.home).registry_db.exists()
    there = Settings(home=here.home, listen="", database=database)
    await sound(there)
    found = await sums(there)
    del found["propagation.lanes"], wanted["propagation.lanes"]  # nobody owns them yet
    compare(wanted, found)
    app = await opened(there)
    try:
        await app.registry.check_cursor(cursor)
        assert app.engine is not None
        await app.engine.start()
        await put(app, "alias", "after", {"command": "true"})
        assert (await app.registry.head()).revision == cursor.revision + 1
    finally:
        await app.close()


@pytest.mark.slow
async def test_a_hundred_thousand_records_move_in_a_minute(postgres: pgserver.Server, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    app = await opened(here, create=True)
    for start in range(0, 100_000, 1000):
        documents = [
            {"kind": "alias", "name": f"a{number}", "spec": {"command": f"echo {number}"}}
            for number in range(start, start + 1000)
        ]
        await app.service.batch(documents, actor=ACTOR)
    head = await app.registry.head()
    await app.close()
    began = WORLD.monotonic()
    done = await move_to_postgres(here, postgres.database("many"), WORLD)
    took = WORLD.monotonic() - began
    assert done.tables["registry.aliases"].rows == 100_000
    assert took < 60, took
    there = await opened(Settings(home=here.home, listen="", database=postgres.database("many")), read_only=True)
    try:
        await there.registry.check_cursor(head.cursor)
    finally:
        await there.close()
