"""A registry whose engine has run: what waited, was held or given up, who read it and what was compacted comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.app import App, open_app
from universal_registry.care.backup import make_backup
from universal_registry.care.engines import source_of
from universal_registry.care.moving import move_to_postgres
from universal_registry.care.restore import restore
from universal_registry.client.listen import Heard, Receiver, State
from universal_registry.kernel.errors import CursorMismatch
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import HistorySettings, RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.studio.binding import Direction
from universal_registry.propagation.studio.exchange import StudioExchange
from universal_registry.registry.check import check_registry
from universal_registry.registry.consumers import Consumers
from universal_registry.registry.key_check import check_seals
from universal_registry.registry.service import Actor
from universal_registry.runner.drive import Driver
from universal_registry.storage.copying import summed
from universal_registry.storage.keyfile import key_files

ACTOR = Actor("uid:1000", admin=True)
HOST = "127.0.0.1"
ONCE = RetrySettings(enabled=False)
Make = Callable[[str], Settings]


class Clock(SystemWorld):
    """The time of the machine, and some hours."""

    hours = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(hours=self.hours)


class Inbox:
    """A real receiver. `came`: webhook-id -> what came under it, each time; `state`: the newest of each record."""

    def __init__(self, world: Clock) -> None:
        self.came: dict[str, list[tuple[str, str, Any]]] = {}
        self.state: dict[str, tuple[str, Any]] = {}
        self.port = 0
        self._world = world
        self._receiver: Receiver | None = None

    async def start(self) -> None:
        """Listen; the second time on the same port, remembering nothing of what it had."""
        self._receiver = Receiver(world=self._world, secrets=[], on_event=self._heard)
        _, self.port = await self._receiver.start(HOST, self.port)

    async def stop(self) -> None:
        if self._receiver is not None:
            await self._receiver.stop(0.0)
            self._receiver = None

    def _heard(self, heard: Heard) -> None:
        assert heard.state in (State.RECEIVED, State.REPEATED), heard
        self.came.setdefault(heard.id, []).append((heard.subject, heard.sequence, heard.data))
        if heard.sequence >= self.state.get(heard.subject, ("", None))[0]:
            self.state[heard.subject] = (heard.sequence, heard.data)

    def same_under_each_id(self) -> bool:
        return all(each == came[0] for came in self.came.values() for each in came)

    def commands(self) -> dict[str, str]:
        return {
            subject.rsplit("/", 1)[-1]: data["record"]["spec"]["command"]
            for subject, (_, data) in self.state.items()
            if data.get("record")
        }


class Lived:
    """Three targets: one that takes all, one that is down, one that is paused."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.up, self.down, self.paused = (Inbox(self.clock) for _ in range(3))
        self.cursor: Any = None

    @asynccontextmanager
    async def opened(self, settings: Settings, **how: Any) -> AsyncIterator[App]:
        app = await open_app(settings, world=self.clock, **how)
        try:
            yield app
        finally:
            await app.close()

    async def run(self, app: App) -> None:
        """Plan, and try what is due, as a daemon does until nothing is."""
        assert app.engine is not None
        driver = Driver(app.engine, self.clock)
        assert await driver.run(20.0)
        await driver.stop()

    def consumers(self, app: App) -> Consumers:
        return Consumers(app.stores.consumers, app.registry, self.clock)

    def exchange(self, app: App) -> StudioExchange:
        return StudioExchange(app.service, self.consumers(app), app.stores.studio, self.clock)

    async def live(self, settings: Settings) -> None:
        for inbox in (self.up, self.down, self.paused):
            await inbox.start()
        await self.down.stop()
        async with self.opened(replace(settings, retry=ONCE), create=True) as app:
            await self._compacted(app)
            await self._readers(app)
            for name in ("up", "down", "paused"):
                inbox = getattr(self, name)
                await app.control.add_target(
                    name, f"http://{HOST}:{inbox.port}/{name}", select="kind=alias", actor=ACTOR
                )
            await app.control.tell_target("system", "paused", Action.PAUSE, actor=ACTOR)
            await self.run(app)  # one attempt: then what is for the one that is down is dead
        self.clock.hours += 1
        async with self.opened(settings) as app:
            await app.control.tell_target("system", "down", Action.RESET, actor=ACTOR)
            for name in ("late", "later"):
                await put(app, name, "new")
            await self.run(app)

    async def _compacted(self, app: App) -> None:
        for number in range(30):
            await put(app, f"a{number % 5}", str(number))
        await app.service.delete(Key("alias", "default", "a4"), actor=ACTOR)
        self.clock.hours += 1
        app.compaction.settings = HistorySettings(value_days=0, value_revisions=8, line_days=0, line_revisions=8)
        assert (await app.compaction.run(ACTOR.name, 30.0))["gone"]["lines"] > 0

    async def _readers(self, app: App) -> None:
        self.cursor = (await app.registry.head()).cursor
        await self.consumers(app).keep("reader", {}, self.cursor, actor=ACTOR.name)
        exchange = self.exchange(app)
        await exchange.bind(
            "alias/a0",
            ["c1"],
            direction=Direction.BIDIRECTIONAL,
            studio="nexus",
            namespace=None,
            protocol="",
            actor=ACTOR,
        )
        await exchange.pull("nexus", await exchange.start("nexus", None, actor=ACTOR), 100)

    async def close(self) -> None:
        for inbox in (self.up, self.down, self.paused):
            await inbox.stop()


async def put(app: App, name: str, command: str) -> None:
    await app.service.put({"kind": "alias", "name": name, "spec": {"command": command}}, actor=ACTOR)


async def sound(app: App) -> None:
    await check_registry(app.service.records, app.service.log, app.service.event_commitment)
    assert not (await check_seals(app.service, app.sealer, app.stores.keys)).wrong
    for trail in app.audit.trails:
        await app.audit.verify_trail(trail)


async def rows(app: App) -> set[tuple[Any, ...]]:
    return {(row["delivery"], row["state"], row["target"]) for row in await app.control.deliveries()}


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def sqlite(name: str) -> Settings:
        return Settings(home=tmp_path / name, listen="")

    def postgres(name: str) -> Settings:
        server: pgserver.Server = request.getfixturevalue("postgres")
        return Settings(home=tmp_path / name, listen="", database=server.database(f"lived_{name}"))

    return sqlite if request.param == "sqlite" else postgres


@pytest.fixture
async def lived() -> AsyncIterator[Lived]:
    found = Lived()
    yield found
    await found.close()


async def ended(lived: Lived, settings: Settings) -> None:
    """Everything is up again and nobody is held: each target ends with the current state."""
    await lived.down.start()
    lived.clock.hours += 1
    async with lived.opened(settings) as app:
        await sound(app)
        await app.control.tell_target("system", "paused", Action.RESUME, actor=ACTOR)
        await app.control.tell_target("system", "down", Action.RESET, actor=ACTOR)
        for row in await app.control.deliveries(states=["dead"]):
            await app.control.tell_delivery(row["delivery"], Action.REDRIVE, actor=ACTOR)
        await put(app, "last", "after")
        for _ in range(3):
            await lived.run(app)
            lived.clock.hours += 1
        assert await rows(app) == set()
        await sound(app)
    wanted = {"a0": "25", "a1": "26", "a2": "27", "a3": "28", "late": "new", "later": "new", "last": "after"}
    for inbox in (lived.up, lived.down, lived.paused):
        assert inbox.commands() == wanted
        assert inbox.same_under_each_id()


async def test_what_has_lived_goes_on_after_a_restore(make: Make, lived: Lived, tmp_path: Path) -> None:
    before, after = make("before"), make("after")
    await lived.live(before)
    async with lived.opened(before, read_only=True) as app:
        waited, horizon = await rows(app), await app.registry.horizon()
    assert {"dead", "waiting"} <= {state for _, state, _ in waited}
    assert {target for _, _, target in waited} == {"system/down", "system/paused"}
    assert horizon.lines > 0
    ring = key_files(before, lived.clock).load()
    made = await make_backup(before, ring, lived.clock, tmp_path / "one.backup")
    await restore(made.path, after, lived.clock, keys=ring)
    async with lived.opened(after) as app:
        assert await rows(app) == waited
        assert await app.registry.horizon() == horizon
        reader = await lived.consumers(app).get("reader")
        assert reader.place == lived.cursor
        with pytest.raises(CursorMismatch):  # it is told to read everything again, and does not miss it
            await app.registry.check_cursor(reader.place)
    await ended(lived, after)


async def test_what_has_lived_goes_on_on_postgresql(postgres: pgserver.Server, lived: Lived, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "home", listen="")
    await lived.live(here)
    async with lived.opened(here, read_only=True) as app:
        waited, horizon = await rows(app), await app.registry.horizon()
    arrived = {each: len(came) for each, came in lived.up.came.items()}
    database = postgres.database("lived_moved")
    await move_to_postgres(here, database, lived.clock)
    there = replace(here, database=database)
    async with lived.opened(there) as app:
        assert await rows(app) == waited
        assert await app.registry.horizon() == horizon
        consumers = lived.consumers(app)
        reader = await consumers.get("reader")
        assert reader.place == lived.cursor
        await app.registry.check_cursor(reader.place)
        head = (await app.registry.head()).cursor
        assert (await consumers.acknowledge("reader", head)).place == head
        exchange = lived.exchange(app)
        assert await exchange.pull("nexus", await exchange.start("nexus", None, actor=ACTOR), 100)
    await ended(lived, there)
    assert {each: len(came) for each, came in lived.up.came.items() if each in arrived} == arrived
    assert len(lived.up.came) == len(arrived) + 1  # the one change that was made since
    async with source_of(there, lived.clock) as source:
        assert (await summed(source.batches()))["propagation.deliveries"].rows == 0
