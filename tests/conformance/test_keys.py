"""Keys and their rotation, whatever the engine below: add yours to ENGINES."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.kernel.errors import Conflict, Corrupt, KeyMismatch, NotFound, ReadOnlyStore, StorageFull
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import EncryptionSettings
from universal_registry.kernel.world import SystemWorld
from universal_registry.log.change import Op
from universal_registry.registry import key_control
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.check import check_registry
from universal_registry.registry.key_control import KeyControl
from universal_registry.registry.keys import open_keys
from universal_registry.registry.once import Once, Replayed
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import kid_of, new_key
from universal_registry.storage.keyfile import KeyFiles
from universal_registry.storage.keys_postgres import PgKeys
from universal_registry.storage.keys_sqlite import SqliteKeys
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

CATALOGUE = load_catalogue()
OPERATOR = Actor("uid:1000", admin=True)
TOKEN = Key("secret", "default", "token")


class Clock(SystemWorld):
    """The real world, with a clock that tests move."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def pass_by(self, **span: float) -> None:
        self.moment += timedelta(**span)


@dataclass
class House:
    """An opened registry of one home."""

    service: RegistryService
    control: KeyControl
    sealer: Sealer
    files: KeyFiles
    store: SqliteKeys | PgKeys
    registry: Any
    world: Clock
    strangers: list[str]
    """Keys that stood in the key file, and that the store did not know."""

    async def rotate(self) -> str:
        """To its end; the new key."""
        while (await self.control.rotate("uid:1000"))["rotation"] is not None:
            self.world.pass_by(seconds=1)
        return self.sealer.keyring.primary

    async def put(self, name: str, value: str, once: Once | None = None) -> None:
        document = {"kind": "secret", "name": name, "spec": {"value": value}}
        await self.service.put(document, actor=OPERATOR, once=once)

    async def value(self, name: str) -> str:
        revealed: str = self.service.reveal(await self.service.get(Key("secret", "default", name)))["value"]
        return revealed

    async def uses(self, *kids: str) -> dict[str, int]:
        return dict(await self.store.uses(kids))


Opener = Callable[..., AbstractAsyncContextManager[House]]


@asynccontextmanager
async def sqlite(folder: Path, world: Clock, **more: Any) -> AsyncIterator[House]:
    registry = SqliteRegistry.open(folder / "registry.db", CATALOGUE, world)
    try:
        async with house(folder, registry, SqliteKeys(registry, CATALOGUE), world, **more) as opened:
            yield opened
    finally:
        registry.database.close()


@asynccontextmanager
async def postgres(folder: Path, world: Clock, *, home: str = "home", **more: Any) -> AsyncIterator[House]:
    registry = await PostgresRegistry.open(pgserver.database_of(folder), CATALOGUE, world)
    try:
        async with house(
            folder, registry, PgKeys(registry, CATALOGUE), world, home=home, shared=True, **more
        ) as opened:
            yield opened
    finally:
        await registry.database.close()


@asynccontextmanager
async def house(
    folder: Path,
    registry: Any,
    store: Any,
    world: Clock,
    *,
    home: str = "home",
    shared: bool = False,
    background: bool = False,
    settings: EncryptionSettings | None = None,
    mounted: Path | None = None,
) -> AsyncIterator[House]:
    files = KeyFiles(folder / home / "config" / "encryption.key", world, mounted=mounted)
    strangers: list[str] = []
    sealer = await open_keys(files, registry, store, world, read_only=False, on_stranger=strangers.append)
    writer = GroupWriter(registry, CATALOGUE)
    service = RegistryService(
        catalogue=CATALOGUE, sealer=sealer, writer=writer, records=registry, log=registry, world=world
    )
    control = KeyControl(
        store=store,
        facts=registry,
        files=files,
        sealer=sealer,
        world=world,
        settings=settings or EncryptionSettings(),
        drain=writer.drain,
        shared=shared,
        background=background,
    )
    try:
        yield House(service, control, sealer, files, store, registry, world, strangers)
    finally:
        await writer.close()


ENGINES: dict[str, Opener] = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    world = Clock()

    def again(**more: Any) -> AbstractAsyncContextManager[House]:
        return ENGINES[request.param](tmp_path, more.pop("world", world), **more)

    return again


async def filled(house: House, secrets: int = 3) -> None:
    """Everything in which something is sealed: records and their past, events, kept answers, facts."""
    for number in range(secrets):
        await house.put(f"s{number}", f"old {number}")
        await house.put(f"s{number}", f"value {number}")
    await house.put("token", "hunter2", Once(key="k", fingerprint="f", render=lambda _: b"the first answer"))
    await house.service.emit(TOKEN, {"seen": [1, "zwei"]}, audience=["system/t"], session="s", actor=OPERATOR)
    await house.service.delete(Key("secret", "default", "s0"), actor=OPERATOR)


async def all_is_there(house: House, secrets: int = 3) -> None:
    for number in range(1, secrets):
        assert await house.value(f"s{number}") == f"value {number}"
    assert await house.value("token") == "hunter2"
    lines = await house.service.log.changes(0, 10_000)
    (event,) = [line for line in lines if line.op is Op.EVENT]
    assert house.service.open_event(event).payload == {"seen": [1, "zwei"]}
    with pytest.raises(Replayed) as caught:
        await house.service.replay(OPERATOR, "k", "f")
    assert caught.value.answer == b"the first answer"
    await check_registry(house.service.records, house.service.log, house.service.event_commitment)


# --- rotation -------------------------------------------------------------------------------------------------------


async def test_after_a_rotation_everything_opens_with_the_new_key_alone(opened: Opener) -> None:
    async with opened() as house:
        await filled(house)
        old = house.sealer.keyring.primary
        before = {(line.revision, line.seq): line.hash for line in await house.service.log.changes(0, 10_000)}
        assert (await house.uses(old))[old] > 8
        new = await house.rotate()
        assert new != old
        assert await house.uses(old) == {old: 0}
        assert (await house.uses(new))[new] > 8
        await all_is_there(house)
        after = {(line.revision, line.seq): line.hash for line in await house.service.log.changes(0, 10_000)}
        assert after == before, "the chain knows nothing of ciphertext"
        assert (await house.control.retire(old, "uid:1000"))["uses"] == 0
        assert set(house.sealer.keyring.keys) == {new}
        await all_is_there(house)
        await house.put("late", "later")
    assert [kid_of(key) for key in house.files.load().keys.values()] == [new]
    async with opened() as house:
        await all_is_there(house)
        assert await house.value("late") == "later"


async def test_a_rotation_says_how_far_it_is_and_what_it_was(opened: Opener) -> None:
    news: list[str] = []
    async with opened(background=True) as house:
        house.control.on_news(lambda event, **_: news.append(event))
        await filled(house)
        old = house.sealer.keyring.primary
        begun = await house.control.rotate("uid:1000")
        assert begun["rotation"]["place"] == "announced"
        assert [each["state"] for each in begun["keys"]] == ["primary", "next"]
        assert await house.control.rotate("uid:1000") == begun, "one at a time"
        house.world.pass_by(seconds=6)
        places = set()
        while (listing := await house.control.listing())["rotation"] is not None:
            places.add(listing["rotation"]["place"])
            await house.control.tick()
        assert {"announced", "records/secrets", "changes", "answers", "facts"} <= places
        assert news == ["key announced", "key seals", "key rotation done"]
        found = await house.control.listing(count=True)
        states = {each["kid"]: (each["state"], each["uses"]) for each in found["keys"]}
        assert states[old] == ("old", 0)


async def test_what_is_written_during_a_rotation_is_not_left_behind(opened: Opener, monkeypatch: Any) -> None:
    monkeypatch.setattr(key_control, "BATCH", 1)
    async with opened(background=True) as house:
        await filled(house, secrets=6)
        old = house.sealer.keyring.primary
        await house.control.rotate("uid:1000")
        house.world.pass_by(seconds=6)
        number = 0
        while (await house.control.listing())["rotation"] is not None:
            await house.control.tick()
            number += 1
            # A change that leaves a secret alone copies its seal from the record into a new line.
            document = {"kind": "secret", "name": f"s{number % 5 + 1}", "labels": {"turn": str(number)}}
            await house.service.merge(document, actor=OPERATOR)
            assert await house.value("token") == "hunter2"
        assert number > 10
        assert await house.uses(old) == {old: 0}
        await all_is_there(house, secrets=6)


async def test_a_rotation_goes_on_where_it_was_after_each_step(opened: Opener, monkeypatch: Any) -> None:
    monkeypatch.setattr(key_control, "BATCH", 2)
    async with opened() as house:
        await filled(house)
        old = house.sealer.keyring.primary
    async with opened(background=True) as house:
        await house.control.rotate("uid:1000")
    house.world.pass_by(seconds=6)
    for _ in range(100):
        async with opened(background=True) as house:  # a new process for each tick
            house.world.pass_by(seconds=31)
            await house.control.tick()
            await all_is_there(house)
            if (await house.control.listing())["rotation"] is None:
                break
    assert house.sealer.keyring.primary != old
    async with opened() as house:
        assert await house.uses(old) == {old: 0}
        assert (house.files.path.read_bytes().strip()) == house.sealer.keyring.key(house.sealer.keyring.primary)


async def test_an_old_export_does_not_bring_the_old_key_back(opened: Opener) -> None:
    async with opened() as house:
        await house.put("token", "hunter2")
        record = await house.service.get(TOKEN)
        old = house.sealer.keyring.primary
        await house.rotate()
        document = {"kind": "secret", "name": "token", "spec": record.spec, "title": "imported"}
        await house.service.put(document, actor=OPERATOR)
        assert await house.uses(old) == {old: 0}
        assert await house.value("token") == "hunter2"


# --- retiring -------------------------------------------------------------------------------------------------------


async def test_a_key_that_is_needed_is_not_retired(opened: Opener) -> None:
    async with opened(background=True) as house:
        await filled(house)
        old = house.sealer.keyring.primary
        with pytest.raises(Conflict, match="is the one that seals"):
            await house.control.retire(old, "uid:1000")
        with pytest.raises(NotFound, match="no key '00000000'"):
            await house.control.retire("00000000", "uid:1000")
        await house.control.rotate("uid:1000")
        house.world.pass_by(seconds=6)
        await house.control.tick()
        with pytest.raises(Conflict, match="under way"):
            await house.control.retire(old, "uid:1000")
        await house.store.save(None)  # as if it had ended
        with pytest.raises(Conflict, match=f"key {old} is still needed by"):
            await house.control.retire(old, "uid:1000")
        assert old in house.files.load().keys
        await all_is_there(house)


async def test_a_damaged_seal_ends_no_rotation_and_keeps_its_key(opened: Opener) -> None:
    async with opened() as house:
        await filled(house)
        old = house.sealer.keyring.primary
        await damage(house, "s1")
        new = await house.rotate()
        assert await house.uses(old) == {old: 1}
        assert house.sealer.keyring.primary == new
        with pytest.raises(Conflict, match="still needed by 1 rows"):
            await house.control.retire(old, "uid:1000")
        with pytest.raises(Corrupt):
            await house.value("s1")
        assert await house.value("s2") == "value 2"


async def damage(house: House, name: str) -> None:
    """Cut a bit of one sealed value of a record."""
    record = await house.service.get(Key("secret", "default", name))
    seal = record.spec["value"]["$sealed"]
    broken = seal[:40] + ("A" if seal[40] != "A" else "B") + seal[41:]
    database = house.registry.database
    if isinstance(house.store, SqliteKeys):
        async with database.transaction():
            database.execute("INSERT INTO write_guard VALUES (1)")
            database.execute("UPDATE secrets SET spec = replace(spec, ?, ?)", (seal, broken))
            database.execute("DELETE FROM write_guard")
            house.registry.changed_beside({})
    else:
        async with database.transaction() as connection:
            await connection.execute("SELECT set_config('ureg.write', 'on', true)")
            await connection.execute("UPDATE secrets SET spec = replace(spec, $1, $2)", seal, broken)


# --- age ------------------------------------------------------------------------------------------------------------


async def test_a_daemon_rotates_after_ninety_days_by_itself(opened: Opener) -> None:
    async with opened(background=True) as house:
        await filled(house)
        old = house.sealer.keyring.primary
        house.world.pass_by(days=89, hours=23)
        await house.control.tick()
        assert house.sealer.keyring.primary == old
        house.world.pass_by(hours=1)
        await through(house)
        assert house.sealer.keyring.primary != old
        assert await house.control.warnings() == []
        await through(house)
        rotated = house.sealer.keyring.primary
        house.world.pass_by(days=89)
        await through(house)
        assert house.sealer.keyring.primary == rotated, "its age counts from when it was made"


async def through(house: House) -> None:
    for _ in range(100):
        await house.control.tick()
        house.world.pass_by(seconds=1)


async def test_a_store_that_takes_nothing_leaves_no_keys_behind(opened: Opener, monkeypatch: Any) -> None:
    async with opened(background=True) as house:
        await filled(house)
        old = house.sealer.keyring.primary
        begin = house.store.begin

        async def full(*_: object) -> bool:
            raise StorageFull("no space left")

        monkeypatch.setattr(house.store, "begin", full)
        house.world.pass_by(days=90)
        for _ in range(5):
            with pytest.raises(StorageFull):
                await house.control.tick()
        assert set(house.files.load().keys) == {old}
        monkeypatch.setattr(house.store, "begin", begin)
        await through(house)
        assert house.sealer.keyring.primary != old
        assert len(house.files.load().keys) == 2


@pytest.mark.parametrize("days", [1, 30])
async def test_the_interval_is_a_setting(opened: Opener, days: int) -> None:
    settings = EncryptionSettings(key_rotation_interval_days=days)
    async with opened(background=True, settings=settings) as house:
        await house.put("token", "hunter2")
        old = house.sealer.keyring.primary
        house.world.pass_by(days=days, seconds=-1)
        await house.control.tick()
        assert house.sealer.keyring.primary == old
        house.world.pass_by(seconds=1)
        await through(house)
        assert house.sealer.keyring.primary != old


async def test_without_rotation_there_is_a_warning_instead(opened: Opener) -> None:
    async with opened(background=True, settings=EncryptionSettings(rotation_enabled=False)) as house:
        old = house.sealer.keyring.primary
        house.world.pass_by(days=91)
        await through(house)
        assert house.sealer.keyring.primary == old
        (warning,) = await house.control.warnings()
        assert warning == f"key {old} has sealed for 91 days: ureg key rotate"


async def test_a_key_that_is_not_ours_to_write_is_warned_of(opened: Opener, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.key"
    mounted.write_bytes(new_key(SystemWorld()))
    async with opened(background=True, mounted=mounted) as house:
        await filled(house)
        house.world.pass_by(days=90)
        await through(house)
        (warning,) = (await house.control.listing())["warnings"]
        assert "has sealed for 90 days: it is read from a file that is not ours to write" in warning
        with pytest.raises(ReadOnlyStore, match="config/keys/"):
            await house.control.rotate("uid:1000")
    assert not house.files.path.exists(), "no key of our own beside it"


async def test_a_mounted_key_that_was_replaced_seals_when_the_old_one_is_there(opened: Opener, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.key"
    old, new = new_key(SystemWorld()), new_key(SystemWorld())
    mounted.write_bytes(old)
    async with opened(mounted=mounted) as house:
        await filled(house)
    mounted.write_bytes(new)
    with pytest.raises(KeyMismatch, match="the store was sealed with key"):
        async with opened(mounted=mounted):
            pass
    house.files.keep(old)
    async with opened(mounted=mounted, background=True) as house:
        assert house.strangers == [], "it is where somebody put it on purpose"
        await all_is_there(house)
        await through(house)
        assert house.sealer.keyring.primary == kid_of(new)
        assert await house.uses(kid_of(old)) == {kid_of(old): 0}
        await all_is_there(house)


async def test_sealing_on_the_wire_switched_off_is_said(opened: Opener) -> None:
    async with opened(settings=EncryptionSettings(encrypt_payloads=False)) as house:
        await house.put("token", "hunter2")
        (warning,) = await house.control.warnings()
        assert "nothing is sealed on the wire" in warning
        assert "hunter2" not in str((await house.service.get(TOKEN)).spec)


# --- opening --------------------------------------------------------------------------------------------------------


async def test_a_missing_or_foreign_key_is_refused_and_none_is_made(opened: Opener) -> None:
    async with opened() as house:
        await filled(house)
    key = house.files.path.read_bytes()
    house.files.path.unlink()
    with pytest.raises(KeyMismatch, match="is missing"):
        async with opened():
            pass
    assert not house.files.path.exists()
    foreign = new_key(SystemWorld())
    house.files.path.write_bytes(foreign)
    house.files.path.chmod(0o600)
    with pytest.raises(KeyMismatch, match="ureg key restore"):
        async with opened():
            pass
    assert house.files.path.read_bytes() == foreign
    house.files.path.write_bytes(key)
    async with opened() as house:
        await all_is_there(house)


async def test_a_key_put_in_front_of_the_right_one_does_not_seal(opened: Opener) -> None:
    """As after the restore of a database from before a rotation: the store says which key seals it."""
    async with opened() as house:
        await filled(house)
        right = house.sealer.keyring.primary
        assert house.strangers == []
    stranger = new_key(SystemWorld())
    house.files.make_primary(stranger)
    async with opened() as house:
        assert house.sealer.keyring.primary == right
        assert house.strangers == [kid_of(stranger)], "somebody is told"
        await all_is_there(house)
    async with opened() as house:
        assert house.strangers == [], "and once"
    assert kid_of(house.files.path.read_bytes().strip()) == right
    assert len(house.files.load().keys) == 2, "nothing is thrown away"


# --- several daemons ------------------------------------------------------------------------------------------------


async def test_other_daemons_take_a_new_key_over_and_give_the_old_one_up(
    postgres: pgserver.Server, tmp_path: Path
) -> None:
    world = Clock()
    opener = ENGINES["postgres"]
    async with opener(tmp_path, world, home="one", background=True) as one:
        await filled(one)
        two_config = tmp_path / "two" / "config"
        two_config.mkdir(parents=True, mode=0o700)
        two_config.chmod(0o700)
        (two_config / "encryption.key").write_bytes(one.files.path.read_bytes())
        (two_config / "encryption.key").chmod(0o600)
        async with opener(tmp_path, world, home="two", background=True) as two:
            old = one.sealer.keyring.primary
            new = (await one.control.rotate("uid:1000"))["rotation"]["kid"]
            await one.control.tick()
            assert one.sealer.keyring.primary == old, "it waits for the others"
            await two.control.tick()
            assert new in two.files.load().keys
            world.pass_by(seconds=6)
            await one.control.tick()
            assert one.sealer.keyring.primary == new
            await one.put("from-one", "1")
            assert await two.value("from-one") == "1", "it was announced"
            await two.control.tick()
            assert two.sealer.keyring.primary == new
            assert kid_of(two.files.path.read_bytes().strip()) == new
            await settled(one, two)
            await all_is_there(two)
            await one.control.retire(old, "uid:1000")
            await two.control.tick()
            assert set(two.files.load().keys) == {new}
            await all_is_there(two)


async def settled(*houses: House) -> None:
    for _ in range(50):
        for house in houses:
            await house.control.tick()
        houses[0].world.pass_by(seconds=1)


async def test_a_lost_daemons_rotation_is_taken_over(postgres: pgserver.Server, tmp_path: Path) -> None:
    world = Clock()
    opener = ENGINES["postgres"]
    async with opener(tmp_path, world, background=True) as one:
        await filled(one)
        old = one.sealer.keyring.primary
        await one.control.rotate("uid:1000")
        world.pass_by(seconds=6)
        await one.control.tick()
    async with opener(tmp_path, world, background=True) as two:
        world.pass_by(seconds=20)
        assert await two.control.tick() > 0
        assert (await two.control.listing())["rotation"] is not None
        world.pass_by(hours=-1)  # a clock that was wrong must not keep it
        await settled(two)
        assert (await two.control.listing())["rotation"] is None
        assert await two.uses(old) == {old: 0}


async def test_a_sleeper_cannot_seal_with_a_key_that_was_retired(postgres: pgserver.Server, tmp_path: Path) -> None:
    world = Clock()
    opener = ENGINES["postgres"]
    async with opener(tmp_path, world, background=True) as one, opener(tmp_path, world, background=True) as sleeper:
        await filled(one)
        old = one.sealer.keyring.primary
        await one.control.rotate("uid:1000")
        world.pass_by(seconds=6)
        await settled(one)
        await one.control.retire(old, "uid:1000")
        assert sleeper.sealer.keyring.primary == old
        with pytest.raises(Conflict, match=f"sealed with key {old}, which was retired"):
            await sleeper.put("token", "nobody could open it")
        with pytest.raises(Conflict, match="retired"):
            await sleeper.service.emit(TOKEN, 1, audience=["system/t"], session="s", actor=OPERATOR)
        await sleeper.control.tick()
        await sleeper.put("token", "awake")
        assert await one.value("token") == "awake"


async def test_a_home_that_slept_through_it_all_is_told_which_key_it_lacks(
    postgres: pgserver.Server, tmp_path: Path
) -> None:
    world = Clock()
    opener = ENGINES["postgres"]
    async with opener(tmp_path, world, background=True) as one:
        await filled(one)
        old = one.sealer.keyring.primary
        shutil.copytree(tmp_path / "home", tmp_path / "far")
        async with opener(tmp_path, world, home="far", background=True) as far:
            await one.control.rotate("uid:1000")
            world.pass_by(seconds=6)
            await settled(one)
            await one.control.retire(old, "uid:1000")
            with pytest.raises(KeyMismatch, match=f"sealed with key {one.sealer.keyring.primary} by now"):
                await far.control.tick()
        with pytest.raises(KeyMismatch, match="the store was sealed with key"):
            async with opener(tmp_path, world, home="far"):
                pass
        far.files.make_primary(one.sealer.keyring.key(one.sealer.keyring.primary))
        async with opener(tmp_path, world, home="far") as far:
            await all_is_there(far)
