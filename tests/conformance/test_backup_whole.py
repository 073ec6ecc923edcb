"""A backup is whole or refused in one line before anything is touched; and a restore is done or it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.app import open_app
from universal_registry.care.backup import Made, make_backup
from universal_registry.care.engines import source_of
from universal_registry.care.restore import restore
from universal_registry.kernel.errors import NewerStore, RegistryError
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.service import Actor
from universal_registry.security.keyring import Keyring
from universal_registry.storage import replacing
from universal_registry.storage.copying import TECHNICAL
from universal_registry.storage.home import is_initialised, prepare_home
from universal_registry.storage.keyfile import key_files

WORLD = SystemWorld()
ACTOR = Actor("uid:1000", admin=True)
Make = Callable[[str], Settings]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def sqlite(name: str) -> Settings:
        return Settings(home=tmp_path / name, listen="")

    def postgres(name: str) -> Settings:
        server: pgserver.Server = request.getfixturevalue("postgres")
        return Settings(home=tmp_path / name, listen="", database=server.database(f"whole_{name}"))

    return sqlite if request.param == "sqlite" else postgres


async def put(settings: Settings, command: str) -> None:
    app = await open_app(settings, world=WORLD, create=True)
    try:
        await app.service.put({"kind": "alias", "name": "a", "spec": {"command": command}}, actor=ACTOR)
    finally:
        await app.close()


async def command_of(settings: Settings) -> str:
    app = await open_app(settings, world=WORLD)
    try:
        return str((await app.service.get(Key("alias", "default", "a"))).spec["command"])
    finally:
        await app.close()


async def backed_up(settings: Settings, path: Path) -> tuple[Made, Keyring]:
    ring = key_files(settings, WORLD).load()
    return await make_backup(settings, ring, WORLD, path), ring


async def refused(path: Path, after: Settings, ring: Keyring) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await restore(path, after, WORLD, keys=ring)
    assert "\n" not in caught.value.message
    assert not after.home.exists(), "nothing was touched"
    return caught.value


async def test_what_is_cut_or_changed_anywhere_is_refused(make: Make, tmp_path: Path) -> None:
    before, after = make("before"), make("after")
    await put(before, "one")
    made, ring = await backed_up(before, tmp_path / "one.backup")
    whole, damaged = made.path.read_bytes(), tmp_path / "damaged.backup"
    header = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    places = {*range(header + 6), *range(header, len(whole), 97), len(whole) - 1}
    for place in sorted(places):
        damaged.write_bytes(whole[:place])
        await refused(damaged, after, ring)
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        await refused(damaged, after, ring)
    await restore(made.path, after, WORLD, keys=ring)
    assert await command_of(after) == "one"


async def test_a_newer_format_is_named(make: Make, tmp_path: Path) -> None:
    before, after = make("before"), make("after")
    await put(before, "one")
    made, ring = await backed_up(before, tmp_path / "one.backup")
    newer = tmp_path / "newer.backup"
    newer.write_bytes(made.path.read_bytes().replace(b"backup 1\n", b"backup 2\n", 1))
    error = await refused(newer, after, ring)
    assert isinstance(error, NewerStore)
    assert "format 2" in error.message


async def columns_of(settings: Settings) -> set[str]:
    await put(settings, "one")
    async with source_of(settings, WORLD) as source:
        return {f"{batch.table}.{column}" async for batch in source.batches() for column in batch.columns}


async def test_the_engines_differ_in_the_technical_columns_alone(postgres: pgserver.Server, tmp_path: Path) -> None:
    """A migration that makes another difference would lose a column in a move: it belongs into copying.py."""
    here = await columns_of(Settings(home=tmp_path / "here", listen=""))
    there = await columns_of(Settings(home=tmp_path / "there", listen="", database=postgres.database("columns")))
    assert here ^ there == TECHNICAL


class Killed(BaseException):
    """As a kill: nobody catches it."""


@pytest.mark.parametrize("after_steps", range(8))
async def test_a_restore_that_is_killed_was_done_or_was_not(
    after_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite; on PostgreSQL it is one transaction."""
    here, steps = Settings(home=tmp_path / "home", listen=""), 0
    await put(here, "backed up")
    made, _ = await backed_up(here, tmp_path / "one.backup")
    await put(here, "newer")
    rename = os.rename

    def cut_short(*args: Any) -> None:
        nonlocal steps
        if steps == after_steps:
            raise Killed
        steps += 1
        rename(*args)

    monkeypatch.setattr(replacing.os, "rename", cut_short)
    killed = False
    try:
        await restore(made.path, here, WORLD, replace=True)
    except Killed:
        killed = True
    monkeypatch.setattr(replacing.os, "rename", rename)
    assert killed == (after_steps < 6), "one to commit, two for each file, one at the end"
    if killed and after_steps > 0:
        assert not is_initialised(Places(here.home), here.key_file), "nobody reads one old file and one new"
    prepare_home(Places(here.home), WORLD)  # as `ureg up` does first: it makes files that are missing
    assert await command_of(here) == ("newer" if after_steps == 0 else "backed up")
    kept = {each.name.split(".before-")[0] for each in here.home.glob("*.before-*") if each.stat().st_size}
    assert kept == (set() if after_steps == 0 else {".universal_registry.db", ".registry_propagation.db"})
    assert not list(here.home.glob(".restore*"))


async def test_an_installed_service_keeps_its_links_and_its_files_where_they_are(tmp_path: Path) -> None:
    """Its home has links to the folder of its state; a restore must not leave the files in the home instead."""
    here, state = Settings(home=tmp_path / "home", listen=""), tmp_path / "state"
    await put(here, "one")
    made, _ = await backed_up(here, tmp_path / "one.backup")
    await put(here, "two")
    state.mkdir()
    files = (Places(here.home).registry_db, Places(here.home).propagation_db)
    for file in files:
        file.rename(state / file.name)
        file.symlink_to(state / file.name)
    await restore(made.path, here, WORLD, replace=True)
    assert await command_of(here) == "one"
    assert all(file.is_symlink() and file.resolve().parent == state for file in files)
    assert [each.name for each in here.home.iterdir() if each.name.startswith(".restor")] == []
    assert len(list(state.glob(".universal_registry.db.before-*"))) == 1
