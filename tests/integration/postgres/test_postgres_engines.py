"""Several daemons on one database: a lane has one owner at a time, and what that one leaves is taken over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from universal_registry.kernel.settings import PostgresSettings, RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.engine import Engine
from universal_registry.propagation.outcome import Accepted, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.storage.lanes_postgres import PgLanes
from universal_registry.storage.postgres import PgDatabase
from universal_registry.storage.registry_postgres import PostgresRegistry
from universal_registry.storage.writer import GroupWriter

CATALOGUE = load_catalogue()
OPERATOR = Actor("uid:1000", admin=True)
SEALER = Sealer(Keyring.of(new_key(SystemWorld())), bytes(32))


class StageWorld(SystemWorld):
    """A clock that stands still until it is moved, the same for all daemons."""

    moment = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


class Sink:
    """A transport whose far side is in the test: it notes what came, from whom. `gate`: what attempts wait for."""

    name = "webhook"

    def __init__(self, daemon: str, got: list[tuple[str, str, str]]) -> None:
        self._daemon = daemon
        self._got = got
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, envelope: Envelope) -> Outcome:
        await self.gate.wait()
        subject = orjson.loads(envelope.body)["subject"]
        self._got.append((self._daemon, envelope.url.rpartition("/")[2], subject.rpartition("/")[2]))
        return Accepted(status=200, milliseconds=1.0)

    async def close(self) -> None:
        """Nothing is open."""


class Daemon:
    """One daemon's registry and engine, and its workers' loop in the hands of the test."""

    def __init__(self, name: str, registry: PostgresRegistry, lanes: PgLanes, stage: Stage) -> None:
        self.lanes = lanes
        self.writer = GroupWriter(registry, CATALOGUE)
        self.service = RegistryService(
            catalogue=CATALOGUE, sealer=SEALER, writer=self.writer, records=registry, log=registry, world=stage.world
        )
        self.sink = Sink(name, stage.got)
        settings = Settings(home=stage.folder, retry=RetrySettings())
        self.engine = Engine(self.service, lanes, {"webhook": self.sink}, settings, shared=True)
        self._jobs: set[asyncio.Task[None]] = set()

    async def step(self) -> bool:
        """What the workers do once. True: something moved."""
        while await self.engine.plan():
            pass
        moved = self.engine.unsettled
        if moved:
            await self.engine.settle()
        for job in self.engine.take():
            moved = True
            task = asyncio.get_running_loop().create_task(self.engine.run(job))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)
        for _ in range(5):
            await asyncio.sleep(0)  # lets the attempts run; nothing here waits for time
        return moved

    async def end(self) -> None:
        """As by a kill: what is under way is gone."""
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def put(self, *documents: dict[str, Any]) -> None:
        await self.service.batch([{"op": "put", **document} for document in documents], actor=OPERATOR)

    async def alias(self, *names: str) -> None:
        await self.put(*({"kind": "alias", "name": name, "spec": {"command": "x"}} for name in names))

    async def targets(self, *names: str) -> None:
        """Targets by the names that their URLs end in, and a route of all aliases to them."""
        delivery = {"transport": "webhook", "network": "loopback"}
        for name in names:
            spec = {"url": f"http://127.0.0.1:9/{name}", "protocol": "webhook", "delivery": delivery}
            await self.put({"kind": "endpoint", "namespace": "system", "name": name, "spec": spec})
        propagation = {
            "mode": "unidirectional",
            "selector": {"kinds": ["alias"]},
            "targets": [f"system/{name}" for name in names],
        }
        await self.put(
            {
                "kind": "policy",
                "classification": "PropagationPolicy",
                "namespace": "system",
                "name": "to-" + names[0],
                "spec": {"propagation": propagation},
            }
        )


class Stage:
    """The database, and the daemons that the test starts on it."""

    def __init__(self, database: PostgresSettings, folder: Path) -> None:
        self.world = StageWorld()
        self.folder = folder
        self.got: list[tuple[str, str, str]] = []
        self._database = database
        self._open = AsyncExitStack()

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Stage]:
        async with self._open:
            yield self

    async def daemon(self, name: str) -> Daemon:
        registry = await PostgresRegistry.open(self._database, CATALOGUE, self.world)
        self._open.push_async_callback(registry.database.close)
        database = await PgDatabase.open(self._database, "propagation", self.world)
        self._open.push_async_callback(database.close)
        daemon = Daemon(name, registry, PgLanes(database, self.world), self)
        self._open.push_async_callback(daemon.writer.close)
        self._open.push_async_callback(daemon.end)
        await daemon.engine.start()
        return daemon

    async def settle(self, *daemons: Daemon) -> None:
        """Until nothing moves any more without time passing. The daemons take their steps at the same time."""
        quiet = 0
        while quiet < 3:
            moved = await asyncio.gather(*(daemon.step() for daemon in daemons))
            quiet = 0 if any(moved) else quiet + 1

    async def wait(self, seconds: float, *daemons: Daemon) -> None:
        """Let time pass by seconds, each with everything that is due."""
        for _ in range(round(seconds)):
            self.world.moment += timedelta(seconds=1)
            await self.settle(*daemons)

    def came(self, target: str) -> list[str]:
        return [name for _, where, name in self.got if where == target]


@pytest.fixture
async def stage(database: PostgresSettings, tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(database, tmp_path).playing() as opened:
        yield opened


async def test_two_daemons_deliver_each_change_once_to_each_target(stage: Stage) -> None:
    one, two = await stage.daemon("one"), await stage.daemon("two")
    expected: list[str] = []
    for turn in range(4):
        for index, daemon in enumerate((one, two)):
            await daemon.targets(f"t{turn}{index}a", f"t{turn}{index}b")
            names = [f"a{turn}{index}{each}" for each in range(5)]
            expected += names
            await daemon.alias(*names)
            await stage.settle(one, two)
        await stage.wait(12, one, two)
    owners = Counter(lane.owner for lane in await one.lanes.lanes())
    assert sum(owners.values()) == 16
    for lane in await one.lanes.lanes():
        assert sorted(stage.came(lane.target_name)) == expected, lane.target_name
    daemons = {target: {daemon for daemon, where, _ in stage.got if where == target} for _, target, _ in stage.got}
    assert {len(each) for each in daemons.values()} == {1}
    assert (await one.lanes.depth()).counters.delivered == 16 * 40


async def test_what_a_dead_daemon_had_is_taken_over_when_its_lease_has_ended(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets("t")
    await one.alias("first")
    await stage.settle(one)
    two = await stage.daemon("two")
    one.sink.gate.clear()
    await one.alias("a", "b", "c")
    await stage.settle(one, two)
    await one.end()
    await stage.wait(25, two)
    assert stage.got == [("one", "t", "first")]
    await stage.wait(10, two)
    assert stage.came("t")[:1] == ["first"]
    assert sorted(stage.came("t")[1:]) == ["a", "b", "c"]
    assert {daemon for daemon, _, name in stage.got if name != "first"} == {"two"}


async def test_a_daemon_that_stood_still_sends_nothing_and_gives_way(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets("t")
    await stage.settle(one)
    two = await stage.daemon("two")
    await one.alias("a")
    while await one.engine.plan():
        pass
    stage.world.moment += timedelta(seconds=31)
    assert one.engine.take() == []
    await stage.settle(two)
    await stage.settle(one, two)
    assert stage.got == [("two", "t", "a")]
    (lane,) = await one.lanes.lanes()
    assert lane.generation == 2
    await one.alias("b")
    await stage.wait(15, one, two)
    assert stage.got == [("two", "t", "a"), ("two", "t", "b")]


async def test_a_daemon_that_stops_hands_its_lanes_over(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets("t")
    await stage.settle(one)
    two = await stage.daemon("two")
    await one.engine.stop()
    await two.alias("a")
    await stage.wait(10, two)
    assert stage.got == [("two", "t", "a")]


async def test_a_daemon_started_after_another_has_stopped_need_not_wait(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets("t")
    await stage.settle(one)
    await one.engine.stop()
    two = await stage.daemon("two")
    await two.alias("a")
    await stage.settle(two)
    assert stage.got == [("two", "t", "a")]


async def test_a_target_that_was_taken_away_takes_its_lane_along_whoever_has_it(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets("t")
    await stage.settle(one)
    two = await stage.daemon("two")
    await two.service.batch(
        [
            {"op": "delete", "kind": "policy", "namespace": "system", "name": "to-t"},
            {"op": "delete", "kind": "endpoint", "namespace": "system", "name": "t"},
        ],
        actor=OPERATOR,
    )
    await stage.settle(one, two)
    assert await two.lanes.lanes() == []
    await two.targets("t")
    await two.alias("a")
    await stage.wait(12, one, two)
    assert stage.came("t") == ["a"]
