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

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import PostgresSettings, RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.engine.engine import Engine
from universal_registry.propagation.lanes.lane import Verb
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
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
    """A transport whose far side is in the test: it notes what came, from whom. `gate`: what attempts wait for.
    `outcome`: what becomes of them; only what is accepted is noted."""

    name = "webhook"

    def __init__(self, daemon: str, got: list[tuple[str, str, str]]) -> None:
        self._daemon = daemon
        self._got = got
        self.gate = asyncio.Event()
        self.gate.set()
        self.outcome: Outcome = Accepted(status=200, milliseconds=1.0)

    async def send(self, envelope: Envelope) -> Outcome:
        await self.gate.wait()
        if not isinstance(self.outcome, Accepted):
            return self.outcome
        subject = orjson.loads(envelope.body)["subject"]
        self._got.append((self._daemon, envelope.url.rpartition("/")[2], subject.rpartition("/")[2]))
        return self.outcome

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


async def test_a_chain_and_a_pause_hold_over_daemons(stage: Stage) -> None:
    """The hops of a chain belong to different daemons; what is said to one of these is heard by the other."""
    one, two = await stage.daemon("one"), await stage.daemon("two")
    names = [f"hop{number}" for number in range(6)]
    await one.targets(*names)
    await stage.wait(15, one, two)
    owners = {lane.target_name: lane.owner for lane in await one.lanes.lanes()}
    assert len(set(owners.values())) == 2, "the lanes are shared out"
    first, second = (next(name for name in names if owners[name] == owner) for owner in sorted(set(owners.values())))
    control = PropagationControl(
        two.service, two.lanes, {"webhook": two.sink}, two.engine, stage.world, Settings(home=stage.folder)
    )
    for daemon in (one, two):
        daemon.sink.gate.clear()
    begun = await control.propagate("chain", "hub", [first, second], {"n": 1}, actor=OPERATOR)
    await stage.wait(3, one, two)
    rows = await one.lanes.deliveries(session_id=begun["session"])
    assert [row.keep.value for row in rows if row.state == "pending"] == ["after"]
    await control.tell_session(begun["session"], Verb.PAUSE, actor=OPERATOR)
    for daemon in (one, two):
        daemon.sink.gate.set()
    await stage.wait(5, one, two)
    assert (stage.came(first), stage.came(second)) == (["hub"], []), "what was under way ended, the rest is held"
    await control.tell_session(begun["session"], Verb.RESUME, actor=OPERATOR)
    await stage.wait(5, one, two)
    assert stage.came(second) == ["hub"]
    found = await control.session(begun["session"])
    assert found["state"] == "succeeded"
    assert [each["to"] for each in found["steps"]].count("paused") == 1


async def test_words_and_deadlines_are_done_by_each_daemon_in_its_own_lanes(stage: Stage) -> None:
    one, two = await stage.daemon("one"), await stage.daemon("two")
    names = [f"t{number}" for number in range(6)]
    await one.targets(*names)
    await stage.wait(15, one, two)
    assert len({lane.owner for lane in await one.lanes.lanes()}) == 2, "the lanes are shared out"
    control = PropagationControl(
        two.service, two.lanes, {"webhook": two.sink}, two.engine, stage.world, Settings(home=stage.folder)
    )
    for daemon in (one, two):
        daemon.sink.outcome = Failed(reason="down", status=None, milliseconds=1.0)
    expires = await control.propagate("multicast", "hub", names, {"n": 1}, actor=OPERATOR, deadline=20.0)
    cancelled = await control.propagate("multicast", "hub", names, {"n": 2}, actor=OPERATOR)
    kept = await control.propagate("multicast", "hub", names, {"n": 3}, actor=OPERATOR)
    await stage.wait(3, one, two)
    await control.tell_session(cancelled["session"], Verb.CANCEL, actor=OPERATOR)
    await control.tell_session(kept["session"], Verb.PAUSE, actor=OPERATOR)
    await stage.wait(30, one, two)
    assert (await control.session(expires["session"]))["state"] == "expired"
    assert (await control.session(cancelled["session"]))["state"] == "cancelled"
    rows = Counter((row.session_id, row.state.value, row.keep.value) for row in await one.lanes.deliveries())
    assert rows == {
        (expires["session"], "cancelled", ""): 6,
        (cancelled["session"], "cancelled", ""): 6,
        (kept["session"], "pending", "paused"): 6,
    }
    stored = {lane.lane_id: lane.rows for lane in await one.lanes.lanes()}
    known = {lane_id: run.rows for each in (one, two) for lane_id, run in each.engine._runs.items()}
    assert known == stored == dict.fromkeys(stored, 1)
    await one.end()  # and what is said now, its lanes hear from the one that takes them over
    two.sink.outcome = Accepted(status=200, milliseconds=1.0)
    await control.tell_session(kept["session"], Verb.RESUME, actor=OPERATOR)
    await stage.wait(100, two)
    assert {name: stage.came(name) for name in names} == {name: ["hub"] for name in names}
    assert (await control.session(kept["session"]))["state"] == "succeeded"


async def owners(stage: Stage, *daemons: Daemon) -> list[int]:
    """How many lanes each of the daemons works at, after a while in which all is said about it."""
    await stage.wait(12, *daemons)
    lanes = await daemons[0].lanes.lanes()
    working = [sorted(daemon.engine._runs) for daemon in daemons]
    assert sorted(lane_id for each in working for lane_id in each) == sorted(lane.lane_id for lane in lanes)
    assert len({lane.owner for lane in lanes}) == sum(bool(each) for each in working)
    return [len(each) for each in working]


async def test_a_newcomer_gets_its_share_and_one_that_ends_in_order_gives_it_back(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets(*(f"t{each}" for each in range(9)))
    assert await owners(stage, one) == [9]
    two = await stage.daemon("two")
    assert await owners(stage, one, two) == [5, 4]
    three = await stage.daemon("three")
    assert await owners(stage, one, two, three) == [3, 3, 3]
    generations = {lane.lane_id: lane.generation for lane in await one.lanes.lanes()}
    assert await owners(stage, one, two, three) == [3, 3, 3]
    assert {lane.lane_id: lane.generation for lane in await one.lanes.lanes()} == generations, (
        "they stay where they are"
    )
    await two.engine.stop()
    assert sorted(await owners(stage, one, three)) == [4, 5]
    await one.alias("a")
    await stage.settle(one, three)
    assert len(stage.got) == 9


async def test_targets_that_are_new_are_shared_out_at_once(stage: Stage) -> None:
    one, two, three = [await stage.daemon(name) for name in ("one", "two", "three")]
    await stage.wait(4, one, two, three)
    await one.targets(*(f"t{each}" for each in range(9)))
    await stage.settle(one, two, three)
    assert Counter(lane.generation for lane in await one.lanes.lanes()) == {1: 9}, "none was handed over"
    assert [len(each.engine._runs) for each in (one, two, three)] == [3, 3, 3]


async def test_a_lane_is_handed_over_when_what_is_under_way_has_ended_and_nothing_comes_twice(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets("t0", "t1")
    await stage.settle(one)
    one.sink.gate.clear()
    names = [f"a{each}" for each in range(9)]
    await one.alias(*names)
    await stage.settle(one)
    two = await stage.daemon("two")
    await stage.wait(12, one, two)
    assert stage.got == []
    assert {lane.generation for lane in await one.lanes.lanes()} == {1}, "two attempts of each are under way"
    one.sink.gate.set()
    assert await owners(stage, one, two) == [1, 1]
    for target in ("t0", "t1"):
        assert sorted(stage.came(target)) == names
    assert Counter(daemon for daemon, *_ in stage.got) == {"one": 11, "two": 7}


async def test_what_was_claimed_and_not_begun_is_given_back(stage: Stage) -> None:
    """Rows that are to be tried again, more of them than may be under way at once."""
    one = await stage.daemon("one")
    await one.targets("t0", "t1")
    await stage.settle(one)
    names = [f"a{each}" for each in range(4)]  # one less than opens the breaker
    one.sink.outcome = Failed(reason="busy", status=503, milliseconds=1.0)
    await one.alias(*names)
    await stage.settle(one)
    one.sink.outcome = Accepted(status=200, milliseconds=1.0)
    one.sink.gate.clear()
    await stage.wait(3, one)
    assert all(run.flight and run.due for run in one.engine._runs.values())
    two = await stage.daemon("two")
    await stage.wait(8, one, two)
    one.sink.gate.set()
    assert await owners(stage, one, two) == [1, 1]
    for target in ("t0", "t1"):
        assert sorted(stage.came(target)) == names
    assert {daemon for daemon, *_ in stage.got} == {"one", "two"}
    assert (await one.lanes.depth()).queue_depth == 0


async def test_a_frozen_daemon_comes_back_and_gets_a_share_again(stage: Stage) -> None:
    one = await stage.daemon("one")
    await one.targets(*(f"t{each}" for each in range(4)))
    two = await stage.daemon("two")
    assert await owners(stage, one, two) == [2, 2]
    await stage.wait(34, two)
    assert len(two.engine._runs) == 4
    await two.alias("a")
    assert one.engine.take() == []
    await stage.settle(one, two)
    assert {daemon for daemon, *_ in stage.got} == {"two"}
    assert sorted(await owners(stage, one, two)) == [2, 2]


async def test_an_answer_to_a_claim_that_is_lost_loses_no_lane(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await stage.daemon("one")
    await one.targets("t0", "t1")
    await stage.settle(one)
    two = await stage.daemon("two")
    ask = one.lanes.claim

    async def lost(*who: Any, **more: Any) -> Any:
        await ask(*who, **more)
        raise StorageUnavailable("the connection was lost")

    for _ in range(4):
        monkeypatch.setattr(one.lanes, "claim", lost)
        stage.world.moment += timedelta(seconds=4)
        with pytest.raises(StorageUnavailable):
            await one.engine.plan()
        monkeypatch.setattr(one.lanes, "claim", ask)
        await stage.settle(two, one)
    assert await owners(stage, one, two) == [1, 1]
    await one.alias("a")
    await stage.settle(one, two)
    assert len(stage.got) == 2
