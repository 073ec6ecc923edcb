"""Bugs that other queues had, each as a test of this one. The names say whose it was."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import DeliveryState
from universal_registry.propagation.lanes.lane_command import Action, Command
from universal_registry.propagation.lanes.outcome import Failed
from universal_registry.registry.service import Actor

OPERATOR = Actor("uid:1000", admin=True)
Stage = Any  # the class of the fixture, which pytest alone can import


def down() -> Failed:
    return Failed(reason="no", status=500, milliseconds=1.0)


async def failed_once_and_under_way(stage: Stage) -> None:
    """A row that is being sent, the far side of which has not answered."""
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down()]
    await stage.alias("x")
    await stage.settle()
    stage.targets.gates["one"] = asyncio.Event()
    await stage.wait(2)
    assert {row.state for row in await stage.lanes.deliveries()} == {DeliveryState.SENDING}


async def test_river_1302_the_rescuer_does_not_bring_back_what_has_finished(stage: Stage) -> None:
    await failed_once_and_under_way(stage)
    stage.targets.gates["one"].set()
    await stage.settle()
    assert stage.targets.names("one") == ["x"]
    for _ in range(3):
        await stage.start()
        await stage.settle()
    assert await stage.lanes.deliveries() == []
    assert stage.targets.names("one") == ["x"]


async def test_river_1258_what_a_dead_owner_was_sending_does_not_stay_so(stage: Stage) -> None:
    await failed_once_and_under_way(stage)
    stage.targets.gates.clear()
    await stage.start()
    await stage.settle()
    assert stage.targets.names("one") == ["x"]
    assert await stage.lanes.deliveries() == []


async def test_oban_862_a_daemon_that_comes_back_is_another_owner(stage: Stage) -> None:
    """The same folder, host and name: what the one before was doing is still found."""
    await failed_once_and_under_way(stage)
    before = await stage.lane("one")
    stage.targets.gates.clear()
    await stage.start()
    after = await stage.lane("one")
    assert after.owner != before.owner
    assert after.generation == before.generation + 1


async def test_oban_137_a_payload_over_which_the_daemon_ends_does_not_end_it_for_ever(stage: Stage) -> None:
    await failed_once_and_under_way(stage)
    for _ in range(5):
        await stage.start()
        await stage.settle()
    [row] = await stage.lanes.deliveries()
    assert row.state is DeliveryState.DEAD
    assert "quarantined" in row.reason
    stage.targets.gates.clear()
    await stage.alias("y")
    await stage.settle()
    assert stage.targets.names("one") == ["y"], "and the rest flows"


async def test_oban_328_a_restart_does_not_take_the_last_attempt(stage: Stage) -> None:
    await stage.start(retry=RetrySettings(slow_phase=False, circuit_breaker_enabled=False))
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = [down()] * 5
    await stage.alias("x")
    await stage.until(lambda: stage.targets.attempts == 5)
    stage.targets.gates["one"] = asyncio.Event()
    await stage.until(lambda: stage.targets.attempts == 6)
    stage.targets.gates.clear()
    await stage.start(retry=RetrySettings(slow_phase=False, circuit_breaker_enabled=False))
    await stage.settle()
    assert stage.targets.names("one") == ["x"], "the sixth attempt had not ended, so it was not used up"


async def test_outpost_611_what_comes_while_a_target_is_disabled_does_not_vanish(stage: Stage) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    lane = await stage.lane("one")
    for action in (Action.DISABLE, Action.ENABLE):
        await stage.lanes.give(Command(lane_id=lane.lane_id, action=action, actor="ann", at=stage.world.moment))
        stage.engine.look()
        await stage.settle()
        if action is Action.DISABLE:
            for turn in range(3):
                await stage.alias("x", str(turn))
                await stage.event("deploy", {"turn": turn}, "one")
            await stage.settle()
            await stage.start()
            await stage.wait(10**6)
            assert stage.targets.got == {}
    assert [each for each in stage.targets.names("one") if each == "x"] == ["x"] * 3
    assert len(stage.targets.got["one"]) == 6


async def test_probes_are_one_at_a_time_and_a_late_answer_does_not_close_the_breaker(stage: Stage) -> None:
    """Several probes at once, a probe that never ends, and old answers that flip the state: seen in many breakers."""
    await stage.target("one", in_flight=6)
    await stage.route("all", "one")
    late = stage.targets.gates["one"] = asyncio.Event()
    await stage.alias("slow")
    await stage.settle()
    del stage.targets.gates["one"]
    stage.targets.down.add("one")
    await stage.aliases(20)
    await stage.settle()
    opened = await stage.lane("one")
    stage.targets.down.clear()
    late.set()
    await stage.settle()
    lane = await stage.lane("one")
    assert stage.targets.names("one") == ["slow"]
    assert (lane.breaker, lane.open_until) == (opened.breaker, opened.open_until), "an old answer says nothing of now"
    gate = stage.targets.gates["one"] = asyncio.Event()
    attempts = stage.targets.attempts
    await stage.wait(61)
    for _ in range(10):
        await stage.wait(20)
    assert stage.targets.attempts == attempts + 1, "one probe, while it is under way"
    stage.targets.gates.clear()
    gate.set()
    await stage.wait(3)
    assert len(stage.targets.names("one")) == 21
    assert stage.world.moment - opened.open_until > timedelta(0)


async def away(*_: Any, **__: Any) -> None:
    raise StorageUnavailable("the store is away")


async def test_svix_1844_when_its_store_was_away_the_daemon_goes_on_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody restarts it: it fetched nothing any more, though the store was back."""
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    for where, name in ((stage.lanes, "apply"), (stage.registry, "head"), (stage.registry, "changes")):
        with monkeypatch.context() as broken:
            broken.setattr(where, name, away)
            await stage.alias(name)
            with pytest.raises(StorageUnavailable):
                await stage.settle()
            for _ in range(3):
                with pytest.raises(StorageUnavailable):
                    await stage.step()
        await stage.settle()
        assert stage.targets.names("one").count(name) == 1
    assert await stage.lanes.deliveries() == []


async def test_svix_569_a_crash_before_a_failed_attempt_is_stored_loses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old entry was taken away before the new one was there."""
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    for turn, answers in enumerate(([down()], [down(), down()])):  # at the first attempt, and at a retry
        stage.targets.answers["one"] = answers
        await stage.alias(f"x{turn}")
        if turn:
            await stage.settle()
            stage.world.moment += timedelta(seconds=2)
        tried = stage.targets.attempts
        apply = stage.lanes.apply

        async def dies(settlements: Any, apply: Any = apply, tried: int = tried) -> None:
            if stage.targets.attempts > tried:
                raise StorageUnavailable("the daemon ends here")
            await apply(settlements)

        with monkeypatch.context() as broken:
            broken.setattr(stage.lanes, "apply", dies)
            with pytest.raises(StorageUnavailable):
                await stage.settle()
        await stage.start()
        await stage.until(lambda turn=turn: f"x{turn}" in stage.targets.names("one"))
    assert stage.targets.names("one") == ["x0", "x1"]


async def test_convoy_an_event_that_could_not_be_queued_is_not_only_logged(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was acknowledged when it was in the log, so whatever fails behind that delays it, and no more."""
    await stage.target("one")
    await stage.settle()
    await stage.event("deploy", {"turn": 1}, "one")
    with monkeypatch.context() as broken:
        broken.setattr(stage.registry, "changes", away)
        with pytest.raises(StorageUnavailable):
            await stage.step()
    await stage.start()
    await stage.settle()
    assert len(stage.targets.got["one"]) == 1


async def test_svix_2191_what_is_sent_right_after_a_target_was_made_or_changed_knows_of_it(stage: Stage) -> None:
    """The targets came from a cache: a new one missed its message, a changed one got it where it had been before."""
    await stage.target("one")
    await stage.route("all", "one")
    await stage.alias("x")
    await stage.settle()
    await stage.target("two")
    await stage.event("deploy", {"turn": 1}, "two")
    await stage.route("all", "one", "two")
    await stage.alias("y")
    await stage.settle()
    assert {"deploy", "y"} <= set(stage.targets.names("two"))
    moved = {"kind": "endpoint", "namespace": "system", "name": "two", "spec": {"url": "http://127.0.0.1:9/elsewhere"}}
    await stage.service.merge(moved, actor=OPERATOR)
    await stage.event("deploy", {"turn": 2}, "two")
    await stage.alias("z")
    await stage.settle()
    assert stage.targets.names("elsewhere") == ["deploy", "z"]
    assert "z" not in stage.targets.names("two")
    await stage.route("all", "one")
    await stage.alias("last")
    await stage.settle()
    assert stage.targets.names("one") == ["x", "y", "z", "last"]
    assert stage.targets.names("elsewhere") == ["deploy", "z"]
