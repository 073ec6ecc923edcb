"""What was taken as expected may rest, and is stored with others; nobody waits for it, nor is more sent again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from universal_registry.propagation.lanes.outcome import Failed

Stage = Any  # the class of the fixture, which pytest alone can import
REST, LIMIT = 0.1, 8
MANY = 3 * LIMIT - 1
ROOMY = {"max_in_flight": LIMIT, "max_in_flight_per_target": LIMIT}


@pytest.fixture
async def resting(stage: Stage) -> Stage:
    """A target that all is sent to, and a daemon that lets what was taken rest."""
    await begin(stage)
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    await stage.wait(10)
    return stage


async def begin(stage: Stage, **settings: Any) -> None:
    await stage.start(**{**ROOMY, **settings})
    stage.engine.let_rest(REST)


async def delivered(stage: Stage) -> int:
    """As it is stored."""
    return int((await stage.lane("one")).delivered)


async def test_what_was_taken_is_stored_together_with_others(resting: Stage) -> None:
    before = resting.propagation.read("SELECT count(*) FROM audit")
    for turn in range(3):
        await resting.alias(f"a{turn}")
        await resting.settle()
    assert resting.targets.names("one") == ["a0", "a1", "a2"]
    assert (await delivered(resting), resting.engine.unsettled, resting.engine.idle) == (0, False, False)
    assert resting.engine.next_wake() <= REST
    await resting.wait(REST)
    assert (await delivered(resting), resting.engine.idle) == (3, True)
    assert resting.propagation.read("SELECT count(*) FROM audit") == before


async def test_half_of_what_may_be_under_way_stays_free(resting: Stage) -> None:
    for turn in range(LIMIT // 2):
        assert await delivered(resting) == 0
        await resting.alias(f"a{turn}")
        await resting.settle()
    assert await delivered(resting) == LIMIT // 2


async def test_after_a_kill_no_more_is_sent_again_than_could_be_under_way(resting: Stage) -> None:
    for turn in range(MANY):
        await resting.alias(f"a{turn}")
        await resting.settle()
    stored = await delivered(resting)
    assert 0 < MANY - stored < LIMIT / 2
    await begin(resting)
    await resting.settle()
    await resting.wait(REST)
    ids = resting.targets.ids["one"]
    assert len(ids) - len(set(ids)) == MANY - stored, "again, with the ids they had"
    assert len(set(ids)) == MANY


async def test_a_daemon_that_ends_stores_what_rests(resting: Stage) -> None:
    await resting.alias("a")
    await resting.settle()
    await resting.engine.stop()
    assert await delivered(resting) == 1


async def test_a_later_change_of_the_record_waits_for_no_time(resting: Stage) -> None:
    for turn in range(3):
        await resting.alias("a", str(turn))
        await resting.settle()
    assert resting.targets.commands("one") == ["0", "1", "2"]


async def test_who_finds_no_room_waits_for_no_time(resting: Stage) -> None:
    for turn in range(LIMIT // 2 - 1):
        await resting.alias(f"a{turn}")
        await resting.settle()
    assert await delivered(resting) == 0
    await resting.aliases(3 * LIMIT, "b")
    await resting.settle()
    assert len(resting.targets.names("one")) == LIMIT // 2 - 1 + 3 * LIMIT


async def test_another_target_that_finds_no_room_waits_for_no_time(resting: Stage) -> None:
    await begin(resting, max_in_flight=4, max_in_flight_per_target=4)
    await resting.target("two")
    await resting.route("both", "two")
    await resting.settle()
    gate = resting.targets.gates["two"] = asyncio.Event()
    await resting.aliases(6)
    await resting.settle()
    gate.set()
    await resting.settle()
    assert len(resting.targets.names("one")) == len(resting.targets.names("two")) == 6


async def test_what_fails_and_what_comes_after_a_failure_does_not_rest(resting: Stage) -> None:
    resting.targets.answers["one"] = [Failed(reason="no", status=500, milliseconds=1.0)]
    await resting.alias("a")
    await resting.settle()
    assert len(await resting.lanes.deliveries()) == 1, "its row, at once"
    await resting.alias("b")
    await resting.settle()
    assert await delivered(resting) == 1
    await resting.wait(2)
    assert await delivered(resting) == 2


async def test_events_do_not_rest(resting: Stage) -> None:
    await resting.event("hub", 1, "one")
    await resting.settle()
    assert await delivered(resting) == 1


async def test_later_hops_of_a_chain_wait_for_no_time(resting: Stage) -> None:
    await resting.target("two")
    await resting.target("three")
    await resting.route("all", "one", "two", "three", mode="multicast", pattern="chain")
    await resting.settle()
    await resting.wait(1)
    await resting.alias("a")
    await resting.settle()
    assert resting.targets.names("three") == ["a"]


async def test_with_the_limits_as_they_are_nothing_rests(resting: Stage) -> None:
    await begin(resting, max_in_flight=10, max_in_flight_per_target=2)
    await resting.alias("a")
    await resting.settle()
    assert await delivered(resting) == 1
