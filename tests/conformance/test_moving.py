"""From the files to PostgreSQL: whatever cuts it short, it is done or it is not, and what is next is said."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.app import App, init, open_app
from universal_registry.care.backup import make_backup
from universal_registry.care.engines import server_sinks, source_of
from universal_registry.care.moving import move_to_postgres
from universal_registry.care.restore import restore
from universal_registry.kernel.errors import Conflict, NotFound, StorageUnavailable
from universal_registry.kernel.settings import Places, PostgresSettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.service import Actor
from universal_registry.storage import replacing
from universal_registry.storage.home import none_here, prepare_home
from universal_registry.storage.keyfile import key_files
from universal_registry.storage.postgres import PgDatabase

WORLD = SystemWorld()
ACTOR = Actor("uid:1000", admin=True)
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


class Later(SystemWorld):
    """The next day."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=1)


async def filled(settings: Settings) -> int:
    app = await open_app(settings, world=WORLD, create=True)
    try:
        await app.service.put({"kind": "alias", "name": "a", "spec": {"command": "true"}}, actor=ACTOR)
        return (await app.registry.head()).revision
    finally:
        await app.close()


def put_back(home: Path, aside: str) -> None:
    ending = aside.rsplit(maxsplit=1)[-1]
    for file in home.glob(f"*{ending}*"):
        file.rename(str(file).replace(ending, ""))


async def test_a_move_that_was_cut_short_after_its_commit_is_found_to_be_done(
    postgres: pgserver.Server, tmp_path: Path
) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    await filled(here)
    database = postgres.database("again")
    put_back(here.home, (await move_to_postgres(here, database, WORLD)).aside)
    assert (await move_to_postgres(here, database, WORLD)).again
    other = Settings(home=tmp_path / "other", listen="")
    await asyncio.to_thread(init, other, WORLD)
    with pytest.raises(Conflict, match="already"):
        await move_to_postgres(other, database, WORLD)


class Killed(BaseException):
    """As a kill: nobody catches it."""


@pytest.mark.parametrize("before", [".registry_propagation.db", ".universal_registry.db", ""])
async def test_a_move_that_was_cut_short_between_its_files_says_what_is_next(
    postgres: pgserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Killed before the file of that name goes aside (what SQLite keeps beside it has gone), or after both."""
    here, rename, unlink = Settings(home=tmp_path / "home", listen=""), os.rename, Path.unlink
    database = postgres.database(f"halfway{len(before)}")
    await filled(here)

    def cut_short(old: Any, new: Any) -> None:
        if Path(old).name == before:
            raise Killed
        rename(old, new)

    def kept(self: Path, missing_ok: bool = False) -> None:
        if not before and self.name == ".moving-to-postgresql":
            raise Killed
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(replacing.os, "rename", cut_short)
    monkeypatch.setattr(Path, "unlink", kept)
    with pytest.raises(Killed):
        await move_to_postgres(here, database, WORLD)
    monkeypatch.setattr(replacing.os, "rename", rename)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert "ureg db to-postgres" in none_here(Places(here.home)).hint
    for read_only in (True, False):
        with pytest.raises(NotFound, match="cut short"):
            await open_app(here, world=WORLD, read_only=read_only)
    prepare_home(Places(here.home), WORLD)  # as `ureg up` does first, without the settings of the database
    with pytest.raises(Conflict, match="cut short"):
        await open_app(here, world=WORLD, create=True)
    with pytest.raises(Conflict, match="another database"):
        await move_to_postgres(here, postgres.database("elsewhere"), WORLD)
    done = await move_to_postgres(here, database, WORLD)
    assert done.again
    assert done.tables["registry.aliases"].rows == 1
    left = {each.name for each in here.home.iterdir() if each.stat().st_size and ".db" in each.name}
    ending = done.aside.split()[-1]
    wanted = {f".universal_registry.db{ending}", f".registry_propagation.db{ending}"}
    assert wanted <= left
    assert all(ending in name for name in left)
    assert not (here.home / ".moving-to-postgresql").exists()


async def test_a_restore_into_a_home_that_was_half_moved_counts(
    postgres: pgserver.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    revision = await filled(here)
    await make_backup(here, key_files(here, WORLD).load(), WORLD, tmp_path / "one.backup")
    moved = await move_to_postgres(here, postgres.database("given_up"), WORLD)
    put_back(here.home, moved.aside)
    ending = moved.aside.split()[-1]
    (here.home / ".moving-to-postgresql").write_text(f"{ending}\n{moved.point.incarnation}")
    with pytest.raises(NotFound, match="cut short"):
        await open_app(here, world=WORLD)
    await restore(tmp_path / "one.backup", here, WORLD)
    app = await open_app(here, world=WORLD)
    try:
        assert (await app.registry.head()).revision == revision
    finally:
        await app.close()


async def test_a_home_that_was_moved_is_not_begun_anew(postgres: pgserver.Server, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    await filled(here)
    database = postgres.database("gone_there")
    aside = (await move_to_postgres(here, database, WORLD)).aside.split()[-1]
    with pytest.raises(NotFound, match="was moved to PostgreSQL"):
        await open_app(here, world=WORLD, read_only=True)
    for _ in range(2):  # the first leaves empty files, as each start does
        with pytest.raises(Conflict, match="was moved to PostgreSQL") as refused:
            await asyncio.to_thread(init, here, WORLD)
        assert aside in refused.value.hint
    for file in here.home.glob(f"*{aside}"):
        file.rename(tmp_path / file.name)
    assert (await asyncio.to_thread(init, here, WORLD)).new


async def test_a_registry_in_files_is_not_taken_for_an_empty_database(
    postgres: pgserver.Server, tmp_path: Path
) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    await filled(here)
    there = Settings(home=here.home, listen="", database=postgres.database("too_early"))
    for _ in range(2):
        with pytest.raises(Conflict, match="is in its SQLite files") as refused:
            await asyncio.to_thread(init, there, WORLD)
    assert "ureg db to-postgres" in refused.value.hint
    await move_to_postgres(here, there.database, WORLD)
    app = await open_app(there, world=WORLD)
    await app.close()


async def test_a_second_move_keeps_what_the_first_has_put_aside(postgres: pgserver.Server, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    await filled(here)
    first = await move_to_postgres(here, postgres.database("first"), WORLD)
    kept = {each.name: each.read_bytes() for each in here.home.glob("*.moved-to-*")}
    other = Settings(home=tmp_path / "other", listen="")
    await filled(other)
    for file in other.home.glob(".*.db"):
        file.rename(here.home / file.name)
    with pytest.raises(StorageUnavailable, match="there already"):
        replacing.put_stores_aside(Places(here.home), replacing.HalfMoved(first.aside.split()[-1], ""))
    assert {each.name: each.read_bytes() for each in here.home.glob("*.moved-to-*")} == kept
    second = await move_to_postgres(here, postgres.database("second"), Later())
    assert second.aside != first.aside
    assert kept.items() <= {each.name: each.read_bytes() for each in here.home.glob("*.moved-to-*")}.items()


async def counted(database: PostgresSettings, sql: str) -> int:
    async with PgDatabase(database, "registry", WORLD, read_only=True, size=1).long_snapshot() as connection:
        return int(await connection.fetchval(sql))


async def test_who_opens_a_database_during_a_restore_gets_the_one_that_was_restored(
    postgres: pgserver.Server, tmp_path: Path
) -> None:
    """A daemon that starts meanwhile would else write into schemas that are about to go aside."""
    there = Settings(home=tmp_path / "home", listen="", database=postgres.database("race"))
    await filled(there)
    assert there.database is not None
    made = await make_backup(there, key_files(there, WORLD).load(), WORLD, tmp_path / "one.backup")
    opening: asyncio.Task[App] | None = None
    async with source_of(there, WORLD) as source:
        batches = [batch async for batch in source.batches()]
    try:
        sinks = server_sinks(there.database, WORLD, aside="_before_race")
        async with sinks.begin(made.header.point) as sink:
            for batch in batches:
                await sink.take(batch)
            await sink.name(made.header.point, "0123456789ab")
            opening = asyncio.get_running_loop().create_task(open_app(there, world=WORLD))
            while not await counted(there.database, WAITING):
                assert not opening.done(), "it must wait for its turn"
        app = await opening
        try:
            assert (await app.registry.head()).incarnation == "0123456789ab"
            await app.service.put({"kind": "alias", "name": "b", "spec": {"command": "true"}}, actor=ACTOR)
        finally:
            await app.close()
    finally:
        if opening is not None:
            opening.cancel()
    assert await counted(there.database, "SELECT count(*) FROM registry.aliases") == 2
    assert await counted(there.database, "SELECT count(*) FROM registry_before_race.aliases") == 1


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_restore_that_is_killed_never_leaves_a_store_without_its_keys(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(name: str) -> Settings:
        if engine == "sqlite":
            return Settings(home=tmp_path / name, listen="")
        server: pgserver.Server = request.getfixturevalue("postgres")
        return Settings(home=tmp_path / name, listen="", database=server.database(f"keys_{name}"))

    before, after = place("before"), place("after")
    await filled(before)
    ring = key_files(before, WORLD).load()
    made = await make_backup(before, ring, WORLD, tmp_path / "one.backup")

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("universal_registry.care.restore.put_keys", killed)
        with pytest.raises(Killed):
            await restore(made.path, after, WORLD, keys=ring)
    assert not after.key_file.exists()
    assert not Places(after.home).registry_db.exists()
    if after.database is not None:
        with pytest.raises(NotFound):
            await open_app(after, world=WORLD)
    done = await restore(made.path, after, WORLD, keys=ring)
    assert done.without == ()
    await (await open_app(after, world=WORLD)).close()
