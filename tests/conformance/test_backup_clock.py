"""Backups by the clock, whatever the engine below: made in time, kept, and missed when they are not made."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time, thread_time
from typing import Any

import pgserver
import pytest

from universal_registry.app import open_app
from universal_registry.care.backup import make_backup
from universal_registry.care.kept import keep_newest, kept_in, newest
from universal_registry.care.schedule import Schedule
from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.service import Actor
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.keyfile import key_files

WORLD = SystemWorld()
ACTOR = Actor("uid:1000", admin=True)
HISTORY = "0123456789ab"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    here = Settings(home=tmp_path / "home", listen="")
    if request.param == "sqlite":
        return here
    server: pgserver.Server = request.getfixturevalue("postgres")
    return replace(here, database=server.database("backup_clock"))


async def filled(settings: Settings, count: int = 3) -> str:
    """A registry with some records; the name of its history."""
    app = await open_app(settings, world=WORLD, create=True)
    try:
        documents = [{"kind": "alias", "name": f"a{n}", "spec": {"command": f"echo {n}"}} for n in range(count)]
        await app.service.batch(documents, actor=ACTOR)
        return (await app.registry.head()).incarnation
    finally:
        await app.close()


def ring_of(settings: Settings) -> Keyring:
    return key_files(settings, WORLD).load()


async def test_backups_by_the_clock_are_made_and_only_the_newest_kept(settings: Settings, tmp_path: Path) -> None:
    history = await filled(settings)

    class Clock(SystemWorld):
        hours = 0.0

        def now(self) -> Any:
            return super().now() + timedelta(hours=self.hours)

    clock, ring, news = Clock(), ring_of(settings), []
    assert Schedule(settings, clock, lambda: ring, history).due_in() is None
    assert Schedule(settings, clock, lambda: ring, history).age() is None
    schedule = Schedule(replace(settings, backup_folder=tmp_path / "kept", backup_keep=2), clock, lambda: ring, history)
    schedule.on_news(lambda event, **fields: news.append((event, fields["revision"])))
    for made in range(1, 4):
        assert schedule.due_in() == 0.0
        for _ in range(2):
            assert 0 < await schedule.tick() <= 60
        assert len(news) == made
        wait = schedule.due_in()
        assert wait is not None
        assert wait > 86000
        age = schedule.age()
        assert age is not None
        assert 0 <= age < 400
        clock.hours += 24
        assert 86400 <= (schedule.age() or 0) < 86800
    assert len(kept_in(tmp_path / "kept")) == 2


def test_a_name_of_a_time_to_come_or_of_no_time_keeps_none_from_being_made(tmp_path: Path) -> None:
    for name in ("ureg-29990101T000000Z-r1-0123456789ab.backup", "ureg-20269999T000000Z-r1-0123456789ab.backup"):
        (tmp_path / name).touch()
    settings = Settings(home=tmp_path, listen="", backup_folder=tmp_path)
    schedule = Schedule(settings, WORLD, lambda: Keyring.of(new_key(WORLD)), HISTORY)
    assert (schedule.due_in(), schedule.age()) == (0.0, None)


def named(folder: Path, at: datetime, history: str = HISTORY, draft: str = "") -> Path:
    name = f"ureg-{at:%Y%m%dT%H%M%SZ}-r1-{history}.backup"
    path = folder / (f".{name}.{draft}.part" if draft else name)
    path.write_bytes(b"x")
    return path


def test_registries_that_share_a_folder_leave_each_other_s_backups_alone(tmp_path: Path) -> None:
    other, hours = "ba9876543210", [NOW - timedelta(hours=n) for n in range(5)]
    theirs = {named(tmp_path, at, other) for at in hours}
    ours = [named(tmp_path, at) for at in hours]
    unknown = tmp_path / "ureg-20200101T000000Z-r1.backup"  # it does not say whose it is
    unknown.write_bytes(b"x")
    keep_newest(tmp_path, HISTORY, 2, NOW)
    assert {each.path for each in kept_in(tmp_path)} == {*theirs, *ours[:2]}
    assert unknown.exists()
    ours[0].unlink()
    found = newest(tmp_path, NOW, HISTORY)
    assert found is not None
    assert found.path == ours[1], "the newest of the other one is none of ours"


def test_backups_of_a_time_to_come_do_not_push_out_the_one_just_made(tmp_path: Path) -> None:
    ahead = [named(tmp_path, NOW + timedelta(days=n)) for n in (1, 2, 3)]
    made, old = named(tmp_path, NOW), named(tmp_path, NOW - timedelta(days=1))
    keep_newest(tmp_path, HISTORY, 1, NOW)
    assert {each.path for each in kept_in(tmp_path)} == {*ahead, made}
    assert not old.exists()


def test_drafts_are_swept_when_they_are_ours_and_nobody_writes_them_any_more(tmp_path: Path) -> None:
    old, fresh = named(tmp_path, NOW, draft="aa"), named(tmp_path, NOW, draft="bb")
    theirs, somebody_s = named(tmp_path, NOW, "ba9876543210", draft="cc"), tmp_path / ".ureg-film.part"
    somebody_s.write_bytes(b"x")
    for path in (old, theirs, somebody_s):
        os.utime(path, (0, NOW.timestamp() - 3601))
    os.utime(fresh, (0, NOW.timestamp() - 3599))
    keep_newest(tmp_path, HISTORY, 2, NOW)
    assert not old.exists()
    assert all(path.exists() for path in (fresh, theirs, somebody_s))


async def test_one_that_cannot_be_made_is_said_until_one_is_made(settings: Settings, tmp_path: Path) -> None:
    history, folder = await filled(settings), tmp_path / "kept"
    ring = ring_of(settings)
    schedule = Schedule(replace(settings, backup_folder=folder), WORLD, lambda: ring, history)
    folder.write_bytes(b"a file in its place")
    assert schedule.trouble() == ""
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            await schedule.tick()
    assert schedule.trouble().startswith("no backup is made since 2")
    assert str(folder) in schedule.trouble()
    folder.unlink()
    await schedule.tick()
    assert schedule.trouble() == ""


async def test_the_folder_is_made_and_not_those_above_it(settings: Settings, tmp_path: Path) -> None:
    history, ring = await filled(settings), ring_of(settings)
    folder = tmp_path / "not mounted" / "kept"
    schedule = Schedule(replace(settings, backup_folder=folder), WORLD, lambda: ring, history)
    with pytest.raises(StorageUnavailable, match="no such file"):
        await schedule.tick()
    assert not folder.parent.exists()
    folder.parent.mkdir()
    await schedule.tick()
    assert len(list(folder.iterdir())) == 1


async def test_one_that_does_not_end_is_said(settings: Settings, tmp_path: Path) -> None:
    class Clock(SystemWorld):
        hours = 0.0

        def now(self) -> datetime:
            return super().now() + timedelta(hours=self.hours)

    history, clock, seen = await filled(settings), Clock(), []
    ring = ring_of(settings)

    def looked() -> Keyring:
        """In the middle of one."""
        for clock.hours in (5, 7):
            seen.append(schedule.trouble())
        return ring

    schedule = Schedule(replace(settings, backup_folder=tmp_path / "kept"), clock, looked, history)
    await schedule.tick()
    assert seen[0] == ""
    assert "does not end" in seen[1]
    assert schedule.trouble() == ""


async def test_one_that_is_stopped_in_the_middle_leaves_nothing_and_harms_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    """As a daemon that is told to end: what a thread reads is not closed before it has read."""
    await filled(settings, 3000)
    ring, folder = ring_of(settings), tmp_path / "kept"
    folder.mkdir()
    loop = asyncio.get_running_loop()
    stopped = 0
    for turns in (*range(1, 40, 3), 60, 90):
        making = loop.create_task(make_backup(settings, ring, WORLD, folder))
        for _ in range(turns):
            await asyncio.wait([making], timeout=0.001)
        making.cancel()
        await asyncio.wait([making])
        stopped += making.cancelled()
        if not making.cancelled():
            assert making.exception() is None
            making.result().path.unlink()
        assert os.listdir(folder) == []
    assert stopped > 5
    assert (await make_backup(settings, ring, WORLD, folder)).path.exists()


async def test_the_loop_goes_on_while_one_is_made(settings: Settings, tmp_path: Path) -> None:
    """Half of its work, or more, is done by other threads than that of the loop: measured by processor time."""
    await filled(settings, 5000)
    ring = ring_of(settings)
    began, mine = process_time(), thread_time()
    await make_backup(settings, ring, WORLD, tmp_path / "one.backup")
    whole, loop = process_time() - began, thread_time() - mine
    assert loop < whole / (2 if settings.database is None else 1.2), (loop, whole)
