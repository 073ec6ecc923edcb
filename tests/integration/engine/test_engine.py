"""The engine, whole: what is put arrives, in order, once, whatever the targets and the daemon do meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta
from typing import Any

import pytest

from universal_registry.kernel.errors import StorageFull
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import EncryptionSettings, RetrySettings
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.engine import engine as engine_module
from universal_registry.propagation.engine.window import WINDOW
from universal_registry.propagation.lanes.lane import Breaker, DeliveryState
from universal_registry.propagation.lanes.outcome import Failed, Rejected
from universal_registry.registry.service import Actor
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key

OPERATOR = Actor("uid:1000", admin=True)
Stage = Any  # the class of the fixture, which pytest alone can import


def down(reason: str = "no", *, status: int = 500, retry_after: float | None = None) -> Failed:
    wish = None if retry_after is None else timedelta(seconds=retry_after)
    return Failed(reason=reason, status=status, milliseconds=1.0, retry_after=wish)


async def test_a_change_reaches_each_target_of_its_route(stage: Stage) -> None:
    await stage.target("one")
    await stage.target("two")
    await stage.route("all", "one", "two")
    await stage.alias("gs", "git status")
    await stage.service.put({"kind": "service", "name": "other"}, actor=OPERATOR)
    await stage.settle()
    for target in ("one", "two"):
        [event] = stage.targets.got[target]
        assert event["type"] == "registry.alias.created.v1"
        assert event["subject"] == "alias/default/gs"
        assert event["data"]["record"]["spec"] == {"command": "git status"}
    assert stage.targets.ids["one"] != stage.targets.ids["two"]
    assert (await stage.lane("one")).delivered == 1


async def test_a_new_route_first_sends_what_is_there(stage: Stage) -> None:
    await stage.aliases(300)
    for turn in range(3):
        await stage.alias("a000", f"version {turn}")
    await stage.service.delete(Key("alias", "default", "a299"), actor=OPERATOR)
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("later")
    await stage.settle()
    names = stage.targets.names("one")
    assert names == [*(f"a{index:03}" for index in range(1, 299)), "a000", "later"]
    assert stage.targets.commands("one")[-2] == "version 2"


@pytest.mark.parametrize("size", [1, 7, 128, WINDOW - 6, WINDOW, WINDOW + 44])
async def test_windows_may_end_anywhere_in_a_revision(stage: Stage, size: int) -> None:
    count = 4 if size > 100 else 300 // size
    wanted = []
    for turn in range(2):
        if turn:
            await stage.target("one")
            await stage.route("all", "one")
        for index in range(count):
            await stage.aliases(size, prefix=f"{turn}{index:03}-")
            wanted += [f"{turn}{index:03}-{each:03}" for each in range(size)]
    await stage.settle()
    assert stage.targets.names("one") == wanted


async def test_a_target_that_comes_after_its_route_gets_all(stage: Stage) -> None:
    await stage.route("all", "late")
    await stage.aliases(5)
    await stage.settle()
    await stage.target("late")
    await stage.settle()
    assert stage.targets.names("late") == [f"a{index:03}" for index in range(5)]


async def test_a_declared_target_holds_until_it_has_an_address(stage: Stage) -> None:
    declared = {
        "kind": "endpoint",
        "namespace": "system",
        "name": "one",
        "spec": {"delivery": {"transport": "webhook"}},
    }
    await stage.service.put(declared, actor=OPERATOR)
    await stage.route("all", "one")
    await stage.aliases(3)
    await stage.settle()
    assert (await stage.lanes.depth()).queue_depth == 3
    assert (await stage.lanes.deliveries())[0].reason == "waits for its target"
    assert list(stage.sessions().values()) == ["degraded"]
    await stage.target("one")
    await stage.settle()
    assert stage.targets.names("one") == ["a000", "a001", "a002"]
    assert (await stage.lanes.depth()).queue_depth == 0


async def test_retries_follow_the_seeds_schedule(stage: Stage) -> None:
    await stage.start(retry=RetrySettings(slow_phase=False, jitter_enabled=False, circuit_breaker_enabled=False))
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("gs")
    stage.targets.down.add("one")
    waits = []
    began = stage.world.moment
    while (await stage.lanes.depth()).dead == 0:
        before = stage.targets.attempts
        await stage.until(lambda seen=before: stage.targets.attempts > seen, step_seconds=0.25)
        waits.append((stage.world.moment - began).total_seconds())
        began = stage.world.moment
    assert waits == [0, 1, 2, 4, 8, 16]
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    assert dead.attempts == 6
    assert "connection refused" in dead.reason
    assert [attempt.number for attempt in await stage.lanes.attempts(dead.delivery_id)] == [0, 1, 2, 3, 4, 5]
    assert (await stage.lanes.depth()).counters.failed == 1


async def test_the_slow_phase_outlives_a_day(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("gs")
    stage.targets.down.add("one")
    await stage.settle()
    for _ in range(48):
        await stage.wait(1800)
    assert (await stage.lanes.depth()).dead == 0
    stage.targets.down.clear()
    await stage.until(lambda: stage.targets.names("one") == ["gs"], step_seconds=1800)


async def test_order_per_record_holds_through_failures(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down()]
    for turn in range(5):
        await stage.alias("x", str(turn))
    await stage.alias("y", "other")
    await stage.settle()
    assert stage.targets.commands("one") == ["other"], "the successors of a waiting change wait"
    await stage.wait(2)
    assert stage.targets.commands("one") == ["other", "0", "1", "2", "3", "4"]
    assert len(set(stage.targets.ids["one"])) == 6


async def test_every_attempt_at_one_delivery_has_one_id(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down(), down()]
    await stage.alias("gs")
    await stage.until(lambda: bool(stage.targets.got.get("one")))
    [row_id] = stage.targets.ids["one"]
    assert [attempt.number for attempt in await stage.lanes.attempts(row_id)] == [0, 1]


async def test_an_open_breaker_parks_and_consumes_nothing(stage: Stage) -> None:
    await stage.target("one")
    await stage.target("healthy")
    await stage.route("all", "one", "healthy")
    stage.targets.down.add("one")
    await stage.aliases(50)
    await stage.settle()
    lane = await stage.lane("one")
    assert (lane.breaker, lane.failures) == (Breaker.OPEN, 5 + 1)  # the one that was under way when it opened counts
    assert len(stage.targets.names("healthy")) == 50
    assert (await stage.lanes.depth()).queue_depth == 50
    attempts = stage.targets.attempts
    await stage.wait(55)
    assert stage.targets.attempts == attempts
    await stage.wait(6)
    assert stage.targets.attempts == attempts + 1, "one probe"
    assert (await stage.lane("one")).trips == 2
    stage.targets.down.clear()
    await stage.wait(125)
    assert sorted(stage.targets.names("one")) == [f"a{index:03}" for index in range(50)]
    assert (await stage.lane("one")).breaker is Breaker.CLOSED


async def test_a_payload_that_is_at_fault_is_dead_and_the_rest_flows(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [Rejected(reason="bad shape", status=422, milliseconds=1.0)]
    await stage.alias("poison")
    await stage.settle()
    await stage.alias("good")
    await stage.settle()
    assert stage.targets.names("one") == ["good"]
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    assert dead.name == "poison"
    assert (await stage.lane("one")).breaker is Breaker.CLOSED


async def test_retry_after_pauses_the_whole_target(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down(status=429, retry_after=30)]
    await stage.alias("first")
    await stage.settle()
    await stage.alias("second")
    await stage.wait(29)
    assert stage.targets.attempts == 1
    await stage.wait(2)
    assert sorted(stage.targets.names("one")) == ["first", "second"]


async def test_a_target_that_is_gone_is_held_until_somebody_looks(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down("gone", status=410)]
    await stage.aliases(3)
    await stage.wait(100_000)
    assert stage.targets.attempts <= 2
    assert "gone" in (await stage.lane("one")).held
    assert (await stage.lanes.depth()).dead == 0
    await stage.target("one", timeout=20)
    await stage.settle()
    assert sorted(stage.targets.names("one")) == ["a000", "a001", "a002"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_adding_a_target_again_that_is_gone_sends_what_waits(stage: Stage, restarted: bool) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down("gone", status=410)] * 2
    await stage.aliases(3)
    await stage.wait(60)
    held = (await stage.lane("one")).held
    assert "ureg target add one URL" in held
    if restarted:
        await stage.start()
        await stage.settle()
        assert (await stage.lane("one")).held == held, "a new start is nobody having looked"
    stage.targets.answers.clear()
    stage.world.moment += timedelta(seconds=1)
    transports = {"webhook": stage.targets}
    control = PropagationControl(stage.service, stage.lanes, transports, stage.engine, stage.world, stage.settings)
    url = "http://127.0.0.1:9/one"
    added = await control.add_target("one", url, actor=OPERATOR)
    assert added["result"] == "updated"
    assert "was held: gone (410)" in added["notes"][-1]
    if restarted:
        await stage.start()
    await stage.settle()
    assert sorted(stage.targets.names("one")) == ["a000", "a001", "a002"]
    assert (await stage.lane("one")).held == ""
    assert (await control.add_target("one", url, actor=OPERATOR))["result"] == "unchanged"


async def test_a_hanging_target_takes_only_its_own_places(stage: Stage) -> None:
    for name in ("hangs", "healthy"):
        await stage.target(name)
        await stage.route(name, name)
    stage.targets.gates["hangs"] = asyncio.Event()
    await stage.aliases(40)
    await stage.settle()
    assert len(stage.targets.names("healthy")) == 40
    assert stage.targets.under_way["hangs"] == 2
    assert stage.targets.most_under_way <= 4
    stage.targets.gates.pop("hangs").set()
    await stage.settle()
    assert len(stage.targets.names("hangs")) == 40


async def test_a_killed_daemon_loses_nothing_and_repeats_only_what_was_under_way(stage: Stage) -> None:
    await stage.target("one", in_flight=3)
    await stage.route("all", "one")
    await stage.aliases(200)
    stage.targets.gates["one"] = asyncio.Event()
    await stage.step()
    stage.targets.gates["one"].set()
    for _ in range(10):
        await stage.step()
    before = list(stage.targets.ids["one"])
    assert 0 < len(before) < 200
    stage.targets.gates["one"] = asyncio.Event()
    await stage.step()
    await stage.start()
    stage.targets.gates.pop("one")
    await stage.settle()
    ids = stage.targets.ids["one"]
    assert len(set(ids)) == 200
    assert len(ids) - 200 <= 3
    assert sorted(set(stage.targets.names("one"))) == [f"a{index:03}" for index in range(200)]


async def test_a_slow_one_does_not_hold_the_position_and_is_not_lost(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    real_send = stage.targets.send

    async def first_hangs(envelope: Any) -> Any:
        if b'alias/default/a000"' in envelope.body:
            await asyncio.Event().wait()
        return await real_send(envelope)

    stage.targets.send = first_hangs
    await stage.aliases(30)
    await stage.settle()
    assert len(stage.targets.names("one")) == 29
    lane = await stage.lane("one")
    assert lane.position.revision == (await stage.service.log.head()).revision
    [row] = await stage.lanes.deliveries()
    assert (row.name, row.state) == ("a000", DeliveryState.SENDING)
    stage.targets.send = real_send
    await stage.start()
    await stage.settle()
    assert stage.targets.names("one")[-1] == "a000"
    assert len(stage.targets.names("one")) == 30


async def test_three_crashes_on_one_delivery_quarantine_it(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down()]
    await stage.alias("killer")
    await stage.settle()
    for _ in range(3):
        stage.targets.gates["one"] = asyncio.Event()
        await stage.wait(70)
        await stage.start()
    stage.targets.gates.clear()
    await stage.wait(70)
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    assert (dead.name, dead.crashes) == ("killer", 3)


async def test_beyond_its_rows_a_lane_waits_in_the_log(stage: Stage) -> None:
    await stage.start(rows_per_lane=20)
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    for index in range(60):
        await stage.aliases(10, prefix=f"p{index:02}-")
    await stage.settle()
    rows = (await stage.lanes.depth()).queue_depth
    assert 20 <= rows <= 20 + WINDOW
    assert await stage.engine.lag() > 0
    stage.targets.down.clear()
    await stage.until(lambda: len(stage.targets.names("one")) == 600, step_seconds=30)
    assert await stage.engine.lag() == 0


async def test_the_seeds_queries_say_what_the_engine_says(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(30)
    await stage.settle()
    depth = await stage.lanes.depth()

    def count(query: str) -> int:
        command = ["sqlite3", str(stage.folder / "propagation.db"), query]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)

    events = await asyncio.to_thread(
        count, "SELECT COUNT(*) FROM propagation_events WHERE status IN ('pending', 'retry');"
    )
    webhooks = await asyncio.to_thread(count, "SELECT COUNT(*) FROM webhook_queue WHERE status='pending';")
    assert (events, webhooks) == (depth.queue_depth, depth.webhooks_pending)
    assert depth.queue_depth == 30
    assert await stage.engine.lag() == 0


async def test_one_shot_events_and_their_sessions(stage: Stage) -> None:
    for name in ("one", "two"):
        await stage.target(name)
    stage.targets.answers["two"] = [Rejected(reason="no", status=400, milliseconds=1.0)]
    key = Key("service", "default", "pay")
    audience = ["system/one", "system/two"]
    await stage.service.emit(key, {"hello": 1}, audience=audience, session="s1", actor=OPERATOR)
    await stage.service.emit(key, {"hello": 2}, audience=audience[:1], session="s2", actor=OPERATOR)
    await stage.settle()
    assert [event["data"] for event in stage.targets.got["one"]] == [{"hello": 1}, {"hello": 2}]
    assert stage.sessions() == {"s1": "partial", "s2": "succeeded"}
    stage.targets.down.add("two")
    await stage.service.emit(key, {"hello": 3}, audience=audience, session="s3", actor=OPERATOR)
    await stage.settle()
    assert stage.sessions()["s3"] == "running"
    await stage.start()
    await stage.service.delete(Key("endpoint", "system", "two"), actor=OPERATOR)
    await stage.settle()
    assert stage.sessions()["s3"] == "partial", "its other target is gone, and so is what it was to get"
    stage.targets.down.clear()
    await stage.target("two")
    await stage.settle()
    assert stage.sessions()["s3"] == "partial", "a namesake does not get it"


async def test_standing_sessions_say_how_they_are(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("gs")
    await stage.settle()
    [session] = await stage.lanes.sessions()
    assert (session.standing, session.state) == (True, "in_sync")
    stage.targets.down.add("one")
    await stage.alias("gs", "other")
    await stage.settle()
    [session] = await stage.lanes.sessions()
    assert session.state == "degraded"
    await stage.service.delete(Key("policy", "system", "all"), actor=OPERATOR)
    await stage.settle()
    [session] = await stage.lanes.sessions()
    assert session.state == "cancelled"


async def test_a_removed_target_takes_its_rows_along(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(3)
    await stage.settle()
    await stage.service.delete(Key("endpoint", "system", "one"), actor=OPERATOR)
    await stage.settle()
    assert (await stage.lanes.depth()).queue_depth == 0
    assert await stage.lanes.lanes() == []
    stage.targets.down.clear()
    await stage.target("one")
    await stage.settle()
    assert len(stage.targets.names("one")) == 3, "made again, it gets the current state"


async def test_a_route_applies_as_of_each_lines_own_revision(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("before")
    await stage.route("all", "one", selector={"kinds": ["alias"], "names": ["wanted*"]})
    await stage.alias("unwanted")
    await stage.alias("wanted")
    await stage.settle()
    assert stage.targets.names("one") == ["before", "wanted"]


async def test_secrets_travel_only_where_the_route_says_so(stage: Stage) -> None:
    for name, secrets in (("closed", "redact"), ("open", "include"), ("bare", "include")):
        await stage.target(name, **({} if name == "bare" else {"seal_key": stage.seal_key}))
        await stage.route(name, name, selector={"kinds": ["secret"]}, secrets=secrets)
    await stage.service.put({"kind": "secret", "name": "db", "spec": {"value": "hunter2"}}, actor=OPERATOR)
    await stage.settle()
    for name in ("closed", "bare"):  # a secret leaves only sealed, whatever the route says
        assert stage.targets.got[name][0]["data"]["record"]["spec"] == {"value": {"$secret": "kept"}}
    assert stage.targets.got["open"][0]["data"]["record"]["spec"] == {"value": "hunter2"}
    assert stage.targets.sealed == 1


async def test_with_sealing_off_nothing_is_sealed_and_no_secret_leaves(stage: Stage) -> None:
    await stage.start(encryption=EncryptionSettings(encrypt_payloads=False))
    await stage.target("one", seal_key=stage.seal_key, seal="always")
    await stage.route("all", "one", selector={"kinds": ["secret"]}, secrets="include")
    await stage.service.put({"kind": "secret", "name": "db", "spec": {"value": "hunter2"}}, actor=OPERATOR)
    await stage.settle()
    assert stage.targets.got["one"][0]["data"]["record"]["spec"] == {"value": {"$secret": "kept"}}
    assert stage.targets.sealed == 0


async def test_what_cannot_be_settled_stops_sending_and_is_settled_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    real_apply = stage.lanes.apply

    async def full(settlements: Any) -> None:
        raise StorageFull("no space left")

    await stage.aliases(20)
    await stage.step()
    monkeypatch.setattr(stage.lanes, "apply", full)
    for _ in range(5):
        with pytest.raises(StorageFull):
            await stage.step()
    sent = len(stage.targets.names("one"))
    assert sent <= 4
    monkeypatch.setattr(stage.lanes, "apply", real_apply)
    await stage.settle()
    assert len(stage.targets.names("one")) == 20
    assert (await stage.lane("one")).delivered == 20


async def test_a_registry_that_was_rolled_back_is_noticed(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("gs")
    await stage.settle()
    lane = await stage.lane("one")
    async with stage.propagation.transaction():
        stage.propagation.execute("UPDATE lanes SET hash8 = '00000000' WHERE lane_id = ?", (lane.lane_id,))
    await stage.start()
    await stage.settle()
    assert stage.targets.names("one") == ["gs", "gs"], "the current state is sent again"


# --- races and faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_planning", [False, True])
async def test_lines_that_appear_while_it_plans_wait_for_their_routes(
    stage: Stage, in_planning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit may land between looking at the head and reading the log: its routes are not known yet."""
    monkeypatch.setattr(engine_module, "AT_ONCE", 1)  # what was followed first the lane must read for itself
    await stage.target("one")
    await stage.settle()
    real_changes, landed = stage.registry.changes, []

    async def changes(after: int, limit: int, *, upto: int | None = None) -> Any:
        if (upto is not None) is in_planning and not landed:
            landed.append(True)
            await stage.route("all", "one")
            await stage.aliases(3, prefix="late")
        return await real_changes(after, limit, upto=upto)

    await stage.alias("early")
    await stage.alias("early2")
    stage.registry.changes = changes
    await stage.settle()
    assert landed
    assert stage.targets.names("one") == ["early", "early2", "late000", "late001", "late002"]


@pytest.mark.parametrize("failing", [1, 3, 5])
@pytest.mark.parametrize("backfill", [True, False])
async def test_a_read_that_fails_midway_costs_and_repeats_nothing(stage: Stage, failing: int, backfill: bool) -> None:
    await stage.target("one")
    if not backfill:
        await stage.route("all", "one")
        await stage.settle()
    for index in range(6):
        await stage.alias(f"a{index}")
    if backfill:
        await stage.route("all", "one")
    real_blocked, calls = stage.engine._planner._is_blocked, []

    async def is_blocked(run: Any, key: Key) -> bool:
        calls.append(key)
        if len(calls) == failing:
            raise StorageFull("a read failed")
        return bool(await real_blocked(run, key))

    stage.engine._planner._is_blocked = is_blocked
    with pytest.raises(StorageFull):
        await stage.settle()
    await stage.settle()
    assert stage.targets.names("one") == [f"a{index}" for index in range(6)]


async def test_a_target_made_again_gets_the_present_and_nothing_of_its_namesake(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    key = Key("service", "default", "pay")
    await stage.service.emit(key, {"for": "the first"}, audience=["system/one"], session="s1", actor=OPERATOR)
    await stage.alias("gs", "old")
    await stage.alias("gone")
    await stage.settle()
    await stage.service.delete(Key("endpoint", "system", "one"), actor=OPERATOR)
    await stage.alias("gs", "new")
    await stage.service.delete(Key("alias", "default", "gone"), actor=OPERATOR)
    stage.targets.got.clear()
    await stage.target("one")
    await stage.settle()
    assert stage.targets.commands("one") == ["new"]


async def test_an_attempt_of_a_lane_that_was_dropped_settles_nothing(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.gates["one"] = asyncio.Event()
    await stage.aliases(40)
    await stage.step()
    record = await stage.service.get(Key("endpoint", "system", "one"))
    await stage.service.merge(
        {"kind": "endpoint", "namespace": "system", "name": "one", "spec": {"delivery": None}}, actor=OPERATOR
    )
    await stage.step()
    await stage.service.merge(
        {"kind": "endpoint", "namespace": "system", "name": "one", "spec": {"delivery": record.spec["delivery"]}},
        actor=OPERATOR,
    )
    await stage.step()
    stage.targets.gates.pop("one").set()
    await stage.step()
    await stage.start()
    await stage.settle()
    assert set(stage.targets.names("one")) == {f"a{index:03}" for index in range(40)}


async def test_a_backfill_ends_with_its_route(stage: Stage) -> None:
    await stage.aliases(600)
    await stage.target("one")
    await stage.route("all", "one")
    await stage.step()
    await stage.service.delete(Key("policy", "system", "all"), actor=OPERATOR)
    await stage.settle()
    assert len(stage.targets.names("one")) <= WINDOW


async def test_a_backfill_shows_secrets_where_the_route_does(stage: Stage) -> None:
    await stage.service.put({"kind": "secret", "name": "db", "spec": {"value": "hunter2"}}, actor=OPERATOR)
    await stage.target("one", seal_key=stage.seal_key)
    await stage.route("all", "one", selector={"kinds": ["secret"]}, secrets="include")
    await stage.settle()
    assert stage.targets.got["one"][0]["data"]["record"]["spec"] == {"value": "hunter2"}


async def test_a_fault_of_ours_is_an_outcome_and_is_raised(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    real_send = stage.targets.send

    async def broken(envelope: Any) -> Any:
        raise ZeroDivisionError

    stage.targets.send = broken
    await stage.alias("gs")
    await stage.settle()
    [row] = await stage.lanes.deliveries()
    assert row.reason == "a fault of ours: ZeroDivisionError"
    stage.targets.send = real_send
    await stage.wait(2)
    assert stage.targets.names("one") == ["gs"]


async def test_trouble_of_our_own_store_is_no_fault_of_the_payload(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down()]
    await stage.alias("gs")
    await stage.settle()
    real_line = stage.registry.line

    async def unreadable(revision: int, seq: int) -> Any:
        raise StorageFull("disk I/O error")

    stage.registry.line = unreadable
    await stage.wait(2)
    stage.registry.line = real_line
    assert (await stage.lanes.depth()).dead == 0
    await stage.wait(5)
    assert stage.targets.names("one") == ["gs"]


async def test_a_clean_stop_is_no_crash(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    real_send = stage.targets.send

    async def first_hangs(envelope: Any) -> Any:
        if b'alias/default/a000"' in envelope.body:
            await asyncio.Event().wait()
        return await real_send(envelope)

    stage.targets.send = first_hangs
    await stage.aliases(10)
    for _ in range(4):
        await stage.settle()
        await stage.engine.stop()
        [row] = await stage.lanes.deliveries()
        assert (row.name, row.state, row.crashes) == ("a000", DeliveryState.PENDING, 0)
        await stage.start()
    stage.targets.send = real_send
    await stage.settle()
    assert stage.targets.names("one")[-1] == "a000"
    assert len(stage.targets.names("one")) == 10


async def test_a_seal_that_does_not_open_holds_the_lane(stage: Stage) -> None:
    await stage.target("one", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    await stage.route("all", "one")
    await stage.settle()
    stage.targets.down.add("one")
    await stage.aliases(3)
    await stage.settle()
    other = Sealer(Keyring.of(new_key(stage.world)), bytes(32))
    stage.service._sealer = other
    await stage.start()
    await stage.settle()
    assert (await stage.lanes.depth()).queue_depth == 3
    assert "key" in stage.engine._runs[(await stage.lane("one")).lane_id].target.held


@pytest.mark.timeout(20)
async def test_a_log_that_ends_before_its_head_does_not_hold_the_daemon(stage: Stage) -> None:
    """As when lines vanish between two reads, or a replica lags: it comes back to them later."""
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    real_changes = stage.registry.changes

    async def nothing(after: int, limit: int, *, upto: int | None = None) -> Any:
        return []

    stage.registry.changes = nothing
    await stage.alias("gs")
    assert not await stage.engine.plan()
    stage.registry.changes = real_changes
    await stage.settle()
    assert stage.targets.names("one") == ["gs"]
