"""Order, retries, breaker, commands and clocks, through the whole engine and its real store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.breaker import may_send
from universal_registry.propagation.lanes.lane import Breaker, DeliveryState, Hold
from universal_registry.propagation.lanes.lane_command import Action, Command
from universal_registry.propagation.lanes.outcome import Failed, Rejected
from universal_registry.registry.service import Actor

OPERATOR = Actor("uid:1000", admin=True)
PATIENT = RetrySettings(jitter_enabled=False, circuit_breaker_enabled=False, budget=1000.0)
Stage = Any  # the class of the fixture, which pytest alone can import


def down(status: int | None = 500) -> Failed:
    return Failed(reason="no", status=status, milliseconds=1.0)


def poison() -> Rejected:
    return Rejected(reason="bad shape", status=422, milliseconds=1.0)


async def tell(stage: Stage, action: Action, target: str = "one", **more: Any) -> None:
    await stage.settle()
    lane = await stage.lane(target)
    command = Command(lane_id=lane.lane_id, action=action, actor="ann", at=stage.world.moment, **more)
    await stage.lanes.give(command)
    stage.engine.look()
    await stage.settle()


async def audited(stage: Stage) -> list[tuple[str, str, str]]:
    return list(stage.propagation.read("SELECT actor, action, subject FROM audit ORDER BY number"))


# --- order ----------------------------------------------------------------------------------------------------------


async def test_without_order_a_change_that_waits_keeps_nothing_back(stage: Stage) -> None:
    await stage.target("one", order="none")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down()]
    for turn in range(4):
        await stage.alias("x", str(turn))
    await stage.settle()
    assert stage.targets.commands("one") == ["1", "2", "3"]
    await stage.wait(2)
    assert stage.targets.commands("one") == ["1", "2", "3", "0"]


async def test_in_strict_order_everything_waits_for_what_waits(stage: Stage) -> None:
    await stage.target("one", order="strict", in_flight=5)
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down(), down()]
    await stage.aliases(5)
    await stage.settle()
    assert stage.targets.names("one") == []
    assert stage.targets.attempts == 1, "one at a time"
    await stage.wait(2)
    await stage.alias("later")
    await stage.settle()
    assert stage.targets.names("one") == []
    await stage.wait(3)
    assert stage.targets.names("one") == ["a000", "a001", "a002", "a003", "a004", "later"]


@pytest.mark.parametrize("action", [Action.SKIP, Action.REDRIVE])
async def test_in_strict_order_a_death_holds_until_somebody_decides(stage: Stage, action: Action) -> None:
    await stage.target("one", order="strict")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [poison()]
    await stage.aliases(4)
    await stage.settle()
    lane = await stage.lane("one")
    assert (lane.guard.hold, lane.rows, lane.dead) == (Hold.ORDER, 3, 1)
    assert "ureg delivery redrive" in lane.held
    await stage.start()
    await stage.wait(100_000)
    assert stage.targets.names("one") == [], "over a restart and any time"
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    await tell(stage, action, delivery_id=dead.delivery_id)
    expected = ["a000", "a001", "a002", "a003"]
    assert stage.targets.names("one") == (expected if action is Action.REDRIVE else expected[1:])
    assert (await stage.lane("one")).held == ""
    assert await audited(stage) == [("ann", action.value, f"delivery {dead.delivery_id} to system/one")]


async def test_a_strict_target_that_becomes_free_goes_on_at_once(stage: Stage) -> None:
    await stage.target("one", order="strict")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [poison()]
    await stage.aliases(3)
    await stage.settle()
    await stage.target("one", order="per-key")
    await stage.settle()
    assert stage.targets.names("one") == ["a001", "a002"]


async def test_events_of_one_source_wait_for_each_other_until_one_is_given_up(stage: Stage) -> None:
    await stage.start(retry=RetrySettings(slow_phase=False, circuit_breaker_enabled=False))
    await stage.target("one")
    stage.targets.answers["one"] = [down()] * 6
    for number in range(3):
        await stage.event("deploy", {"number": number}, "one")
    await stage.settle()
    assert stage.targets.got.get("one", []) == []
    await stage.until(lambda: len(stage.targets.got.get("one", [])) == 2)
    assert [event["data"]["number"] for event in stage.targets.got["one"]] == [1, 2]
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    assert dead.op == "event"
    gaps = [headers.get("gap-after") for headers in stage.targets.headers["one"]]
    assert gaps == [f"{dead.revision:016d}.{dead.seq:06d}"] * 2, "they say that one is missing"


# --- only the newest ------------------------------------------------------------------------------------------------


async def test_latest_sends_the_state_of_now_and_says_how_much_it_passed_over(stage: Stage) -> None:
    await stage.target("one", delivery="latest")
    await stage.target("every")
    await stage.route("all", "one", "every")
    stage.targets.down |= {"one", "every"}
    await stage.alias("x", "first")
    await stage.alias("y", "other")
    await stage.settle()
    for turn in range(50):
        await stage.alias("x", str(turn))
        await stage.settle()
    stage.targets.down.clear()
    await stage.until(lambda: len(stage.targets.names("every")) == 52, step_seconds=30)
    assert sorted(stage.targets.commands("one")) == ["49", "other"]
    assert (await stage.lane("one")).guard.superseded == 50
    assert (await stage.lane("every")).guard.superseded == 0
    assert (await stage.lanes.depth()).queue_depth == 0


async def test_latest_also_skips_what_is_planned_and_not_yet_sent(stage: Stage) -> None:
    await stage.target("one", delivery="latest")
    await stage.route("all", "one")
    for turn in range(20):
        await stage.alias("x", str(turn))
    await stage.settle()
    assert stage.targets.commands("one") == ["19"]


async def test_latest_never_skips_an_event(stage: Stage) -> None:
    await stage.target("one", delivery="latest")
    stage.targets.down.add("one")
    for number in range(5):
        await stage.event("deploy", {"number": number}, "one")
        await stage.settle()
    stage.targets.down.clear()
    await stage.until(lambda: len(stage.targets.got.get("one", [])) == 5)
    assert [event["data"]["number"] for event in stage.targets.got["one"]] == [0, 1, 2, 3, 4]


async def test_latest_over_a_restart(stage: Stage) -> None:
    await stage.target("one", delivery="latest")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    for turn in range(10):
        await stage.alias("x", str(turn))
        await stage.settle()
    await stage.start()
    stage.targets.down.clear()
    await stage.until(lambda: bool(stage.targets.got.get("one")))
    assert stage.targets.commands("one") == ["9"]
    await stage.start()
    await stage.settle()
    assert (await stage.lanes.deliveries()) == []


async def test_a_redrive_of_state_that_was_overtaken_sends_nothing_old(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [poison()]
    await stage.alias("x", "old")
    await stage.alias("x", "new")
    await stage.settle()
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    await tell(stage, Action.REDRIVE, delivery_id=dead.delivery_id)
    assert stage.targets.commands("one") == ["new"]
    assert (await stage.lane("one")).dead == 0


# --- classes of answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_target_that_refuses_us_rests_and_is_asked_again(stage: Stage, status: int) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down(status)] * 3
    await stage.aliases(30)
    await stage.settle()
    assert stage.targets.attempts <= 2, "no more than were under way at once"
    lane = await stage.lane("one")
    assert (lane.breaker, lane.guard.hold, lane.dead) == (Breaker.OPEN, Hold.REFUSED, 0)
    assert {row.attempts for row in await stage.lanes.deliveries()} == {0}
    await stage.until(lambda: len(stage.targets.names("one")) == 30, step_seconds=300)
    assert sorted(stage.targets.names("one")) == [f"a{index:03}" for index in range(30)]


async def test_a_refused_target_that_is_mended_goes_on_at_once(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down(401), down(401)]
    await stage.aliases(3)
    await stage.settle()
    await stage.target("one", in_flight=3)
    await stage.settle()
    assert len(stage.targets.names("one")) == 3


async def test_a_410_holds_everything_until_it_is_enabled(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.wait(1)
    stage.targets.answers["one"] = [down(410)]
    await stage.aliases(5)
    await stage.settle()
    await stage.wait(10**6)
    await stage.start()
    await stage.settle()
    lane = await stage.lane("one")
    assert (lane.guard.hold, lane.dead) == (Hold.GONE, 0)
    before = list(stage.targets.names("one"))
    await tell(stage, Action.ENABLE)
    assert stage.targets.names("one") == before + [f"a{index:03}" for index in range(5) if f"a{index:03}" not in before]
    assert len(stage.targets.names("one")) == 5


async def test_poison_alone_dies_and_the_breaker_stays_closed(stage: Stage) -> None:
    """R13: whatever the number of poisonous payloads."""
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [poison()] * 20
    await stage.aliases(60)
    await stage.settle()
    lane = await stage.lane("one")
    assert (lane.breaker, lane.failures, lane.dead, lane.rows) == (Breaker.CLOSED, 0, 20, 0)
    assert len(stage.targets.names("one")) == 40


async def test_what_is_rejected_is_tried_again_where_the_target_says_so(stage: Stage) -> None:
    await stage.target("one", rejected="retry")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [poison()] * 6
    await stage.alias("x")
    await stage.until(lambda: stage.targets.names("one") == ["x"], step_seconds=60)
    assert (await stage.lane("one")).failures == 0


# --- the budget of retries ------------------------------------------------------------------------------------------


async def test_retries_of_a_target_that_is_down_are_few_and_first_tries_are_free(stage: Stage) -> None:
    retry = RetrySettings(jitter_enabled=False, circuit_breaker_enabled=False, slow_phase=False, max_delay_seconds=1.0)
    await stage.start(retry=retry)
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(100)
    await stage.settle()
    assert stage.targets.attempts == 100, "each once, at once"
    for _ in range(60):
        await stage.wait(1)
    retries = stage.targets.attempts - 100
    assert 10 + 6 - 2 <= retries <= 10 + 6 + 2, "the budget, and one for each ten seconds"
    stage.targets.down.clear()
    for _ in range(30):
        await stage.wait(1)
    assert len(stage.targets.names("one")) == 100, "a target that is back pays for nothing"


async def test_the_budget_stands_over_a_restart(stage: Stage) -> None:
    retry = RetrySettings(jitter_enabled=False, circuit_breaker_enabled=False, slow_phase=False, max_delay_seconds=1.0)
    await stage.start(retry=retry)
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(100)
    for _ in range(20):
        await stage.wait(1)
    before = stage.targets.attempts
    for _ in range(5):
        await stage.start(retry=retry)
        await stage.settle()
    assert stage.targets.attempts - before <= 1


# --- people ---------------------------------------------------------------------------------------------------------


async def test_a_pause_holds_and_a_resume_goes_on_in_order(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await tell(stage, Action.PAUSE, reason="they move house")
    for turn in range(3):
        await stage.alias("x", str(turn))
    await stage.settle()
    await stage.start()
    await stage.wait(10**6)
    assert stage.targets.got == {}
    assert {row.reason for row in await stage.lanes.deliveries()} <= {
        "waits for its target",
        "waits behind an earlier change of the same record",
    }
    await tell(stage, Action.RESUME)
    assert stage.targets.commands("one") == ["0", "1", "2"]
    assert await audited(stage) == [
        ("ann", "target.pause", "target system/one"),
        ("ann", "target.resume", "target system/one"),
    ]


async def test_a_command_is_done_once_even_when_its_commit_fails_first(stage: Stage) -> None:
    await stage.target("one")
    await stage.settle()
    lane = await stage.lane("one")
    await stage.lanes.give(Command(lane_id=lane.lane_id, action=Action.PAUSE, actor="ann", at=stage.world.moment))
    stage.engine.look()
    await stage.engine.plan()  # done in memory, not stored
    await stage.start()  # killed: the next one does it
    await stage.settle()
    assert (await stage.lane("one")).paused
    assert len(await audited(stage)) == 1
    assert await stage.lanes.commands() == []


async def test_a_reset_breaker_sends_at_once_and_starts_slowly(stage: Stage) -> None:
    await stage.target("one", in_flight=8)
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(40)
    await stage.settle()
    assert (await stage.lane("one")).breaker is Breaker.OPEN
    stage.targets.down.clear()
    most = []
    stage.targets.watch = lambda: most.append(stage.targets.under_way["one"])
    await tell(stage, Action.RESET)
    await stage.wait(2)
    assert len(stage.targets.names("one")) == 40
    assert most[0] == 1
    assert max(most) <= 8


async def test_an_open_breaker_stands_over_a_restart_and_the_probe_still_comes(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(10)
    await stage.settle()
    before, attempts = await stage.lane("one"), stage.targets.attempts
    await stage.start()
    await stage.settle()
    after = await stage.lane("one")
    assert (after.breaker, after.open_until, after.trips) == (before.breaker, before.open_until, before.trips)
    assert stage.targets.attempts == attempts, "a restart is no probe"
    stage.targets.down.clear()
    await stage.wait(61)
    assert len(stage.targets.names("one")) == 10


async def test_a_forced_open_breaker_parks_and_says_who_did_it(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await tell(stage, Action.OPEN, until=stage.world.moment + timedelta(minutes=10))
    await stage.aliases(3)
    await stage.settle()
    rows = await stage.lanes.deliveries()
    assert stage.targets.attempts == 0
    assert {row.attempts for row in rows} == {0}
    assert {row.reason for row in rows} == {"waits for its target"}
    assert "opened by ann" in may_send(await stage.lane("one"), stage.world.moment)
    await stage.wait(601)
    assert len(stage.targets.names("one")) == 3


# --- disabled by policy ---------------------------------------------------------------------------------------------


async def test_a_target_that_is_dead_for_days_is_disabled_after_a_notice_and_nothing_is_lost(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(40)
    await stage.settle()
    news: list[str] = []
    stage.engine.on_news(lambda event, **_: news.append(event))
    for _ in range(24 * 40):
        await stage.wait(3600)
        if (await stage.lane("one")).guard.hold is Hold.DISABLED:
            break
    lane = await stage.lane("one")
    assert lane.guard.hold is Hold.DISABLED
    assert lane.dead >= 20
    assert news.index("target will be disabled") < news.index("target held")
    attempts = stage.targets.attempts
    await stage.wait(86400)
    assert stage.targets.attempts == attempts, "no further attempt is burnt"
    stage.targets.down.clear()
    await tell(stage, Action.ENABLE)
    await stage.wait(1)
    lane = await stage.lane("one")
    assert lane.delivered + lane.dead == 40
    for dead in await stage.lanes.deliveries(states=[DeliveryState.DEAD]):
        await tell(stage, Action.REDRIVE, delivery_id=dead.delivery_id)
    assert sorted(stage.targets.names("one")) == [f"a{index:03}" for index in range(40)]


# --- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600, 3600])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_clock_that_steps_an_hour_loses_nothing_and_stops_nothing(
    stage: Stage, step: int, restart: bool
) -> None:
    await stage.target("one")
    await stage.target("two")
    await stage.route("all", "one", "two")
    stage.targets.down |= {"one", "two"}
    await stage.aliases(3)
    await stage.settle()
    await stage.wait(1.2)
    attempts = stage.targets.attempts
    stage.world.moment += timedelta(seconds=step)
    if restart:
        await stage.start()
    await stage.settle()
    assert stage.targets.attempts - attempts <= 8, "no storm"
    stage.targets.down.clear()
    for _ in range(130):
        await stage.wait(1)
    for target in ("one", "two"):
        assert sorted(stage.targets.names(target)) == ["a000", "a001", "a002"], "no stall"


async def test_a_pause_that_a_target_asked_for_is_no_longer_because_the_clock_went_back(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    busy = Failed(reason="busy", status=429, milliseconds=1.0, retry_after=timedelta(seconds=30))
    stage.targets.answers["one"] = [busy]
    await stage.alias("x")
    await stage.settle()
    stage.world.moment -= timedelta(hours=1)
    await stage.settle()
    await stage.wait(29)
    assert stage.targets.got == {}
    await stage.wait(2)
    assert stage.targets.names("one") == ["x"]
