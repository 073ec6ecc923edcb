"""A line costs the lanes that it is for, however many there are; and lanes that go on as one are still told apart."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.propagation.engine.window import WINDOW, LaneRun
from universal_registry.propagation.lanes.lane import Position

Stage = Any  # the class of the fixture, which pytest alone can import
MANY = 60


async def test_a_line_for_one_lane_looks_at_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MANY):
        await stage.target(f"t{number}")
    await stage.settle()
    looked: list[str] = []
    scanned, unfinished = LaneRun.scanned.fget, LaneRun.unfinished.fget

    def noting(ask: Any) -> property:
        def asked(run: LaneRun) -> Any:
            looked.append(run.address)
            return ask(run)

        return property(asked)

    monkeypatch.setattr(LaneRun, "scanned", noting(scanned))
    monkeypatch.setattr(LaneRun, "unfinished", noting(unfinished))
    await stage.event("source", {"n": 1}, "t7")
    assert not await stage.engine.plan()
    assert set(looked) == {"system/t7"}
    for job in stage.engine.take():
        await stage.engine.run(job)
    await stage.engine.settle()
    assert set(looked) == {"system/t7"}
    assert [event["data"] for event in stage.targets.got["t7"]] == [{"n": 1}]


async def test_all_have_read_what_was_for_one(stage: Stage) -> None:
    for name in ("one", "two"):
        await stage.target(name)
    await stage.settle()
    await stage.event("source", 1, "one")
    await stage.settle()
    head = (await stage.service.log.head()).revision
    assert {place.whole for place in stage.engine.positions().values()} == {head}
    await stage.wait(10)  # long enough for those that had nothing to do to be stored, too
    assert {lane.position.whole for lane in await stage.lanes.lanes()} == {head}


async def test_a_lane_without_room_stays_behind_and_misses_nothing(stage: Stage) -> None:
    """One of two lanes at the same place can take no more; it comes after, from its own place, and in order."""
    await stage.start(rows_per_lane=20)
    for name in ("slow", "well"):
        await stage.target(name)
    await stage.route("all", "slow", "well", mode="multicast")
    await stage.settle()
    stage.targets.down.add("slow")
    for round_ in range(6):
        await stage.aliases(100, prefix=f"p{round_}-")
        await stage.settle()
    assert len(stage.targets.names("well")) == 600
    assert 20 <= (await stage.lane("slow")).rows <= 20 + WINDOW
    stage.targets.down.clear()
    await stage.until(lambda: len(stage.targets.names("slow")) == 600, step_seconds=30)
    assert sorted(stage.targets.names("slow")) == sorted(stage.targets.names("well"))
    await stage.alias("last")
    await stage.settle()
    assert (stage.targets.names("slow")[-1], stage.targets.names("well")[-1]) == ("last", "last")
    places = set(stage.engine.positions().values())
    assert len(places) == 1, "and they go on together"


async def test_a_line_that_was_planned_in_part_is_not_planned_twice(stage: Stage) -> None:
    """The stores go away while a line is being planned for the second of its targets: the first has it already."""
    for name in ("one", "two"):
        await stage.target(name)
    await stage.route("all", "one", "two", mode="multicast")
    await stage.settle()
    stage.targets.down.add("two")
    await stage.alias("before")
    await stage.settle()
    real = stage.lanes.blocked_keys

    async def gone(_lane: str, _keys: Collection[Key]) -> set[Key]:
        raise StorageUnavailable("the disk is away")

    stage.lanes.blocked_keys = gone
    await stage.alias("after")
    with pytest.raises(StorageUnavailable):
        await stage.engine.plan()
    with pytest.raises(StorageUnavailable):
        await stage.engine.plan()
    stage.lanes.blocked_keys = real
    await stage.settle()
    assert stage.targets.names("one") == ["before", "after"]
    stage.targets.down.clear()
    await stage.until(lambda: len(stage.targets.names("two")) == 2)
    assert stage.targets.names("two") == ["before", "after"]


async def test_after_a_restart_lanes_at_many_places_come_together(stage: Stage) -> None:
    for number in range(5):
        await stage.target(f"t{number}")
    await stage.settle()
    await stage.wait(10)
    for number in range(40):
        await stage.event("source", number, f"t{number % 5}")
        await stage.settle()
    await stage.start()  # as after a kill: each lane stands where it was stored last, behind its own last event
    stored = {lane.position for lane in await stage.lanes.lanes()}
    assert len(stored) == 5
    await stage.event("source", "last", *(f"t{number}" for number in range(5)))
    await stage.settle()
    for number in range(5):
        got = [event["data"] for event in stage.targets.got[f"t{number}"]]
        assert got == [*range(number, 40, 5), "last"]
    places: set[Position] = set(stage.engine.positions().values())
    assert len(places) == 1
