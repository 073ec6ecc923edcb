"""The two workers on a real engine: one wakes the other, and nothing waits for a tick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from universal_registry.propagation.engine.window import WINDOW
from universal_registry.runner.ports import Pulse
from universal_registry.runner.workers import propagation, webhook
from universal_registry.runner.workers.propagation import PropagationWorker
from universal_registry.runner.workers.webhook import WebhookWorker

Stage = Any  # the class of the fixture, which pytest alone can import
LONG = 60.0


@asynccontextmanager
async def working(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WebhookWorker]:
    """The workers of a daemon, whose ticks never come."""
    for module in (propagation, webhook):
        monkeypatch.setattr(module, "TICK", 3600.0)
    planning = PropagationWorker(stage.engine)
    stage.writer.on_commit(planning.alarm.ring)
    sending = WebhookWorker(stage.engine, stage.world, planning.alarm)
    pulse = Pulse(stage.world)
    tasks = [asyncio.create_task(worker.run(pulse)) for worker in (planning, sending)]
    try:
        yield sending
    finally:
        pulse.end()
        for worker in (planning, sending):
            worker.alarm.ring()
        await asyncio.gather(*tasks)
        await sending.drain(1.0)


async def until(condition: Callable[[], bool]) -> None:
    """Real loops run meanwhile: this gives them their turns."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - there is no event for what a test may wait for
            await asyncio.sleep(0)


async def test_a_backlog_of_many_windows_is_worked_off_without_a_tick(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 4 * WINDOW
    await stage.target("one")
    await stage.route("all", "one")
    await stage.aliases(count)
    async with working(stage, monkeypatch):
        await until(lambda: len(stage.targets.names("one")) == count and stage.engine.idle)
    assert len(set(stage.targets.names("one"))) == count


async def test_a_put_goes_out_and_is_settled_without_a_tick(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.target("one")
    await stage.route("all", "one")
    async with working(stage, monkeypatch):
        for number in range(1, 4):
            await stage.alias(f"a{number}")
            await until(lambda number=number: len(stage.targets.names("one")) == number and stage.engine.idle)
            [lane] = await stage.lanes.lanes()
            assert lane.delivered == number


async def test_a_put_goes_out_while_what_came_before_is_being_stored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that takes its time keeps nothing back, as long as the limits allow it."""
    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    stored, go = asyncio.Event(), asyncio.Event()
    apply = stage.lanes.apply

    async def slow(settlements: Any) -> None:
        stored.set()
        await go.wait()
        await apply(settlements)

    async with working(stage, monkeypatch):
        stage.lanes.apply = slow
        await stage.alias("first")
        await stored.wait()
        await stage.alias("second")
        await until(lambda: stage.targets.names("one") == ["first", "second"])
        await stage.alias("third")  # two to a target are under way or not stored yet: that is the limit
        await until(lambda: stage.engine.planned > 0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert stage.targets.names("one") == ["first", "second"]
        go.set()
        await until(lambda: stage.engine.idle)
    assert stage.targets.names("one") == ["first", "second", "third"]


async def test_nothing_goes_out_once_a_commit_has_failed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from universal_registry.kernel.errors import StorageFull

    await stage.target("one")
    await stage.route("all", "one")
    await stage.settle()
    apply, failed = stage.lanes.apply, asyncio.Event()

    async def full(_: Any) -> None:
        failed.set()
        raise StorageFull("no space left")

    async with working(stage, monkeypatch) as sending:
        stage.lanes.apply = full
        await stage.alias("first")
        await failed.wait()
        await stage.alias("second")
        for _ in range(100):
            await asyncio.sleep(0)
        assert stage.targets.names("one") == ["first"]
        stage.lanes.apply = apply
        sending.alarm.ring()
        await until(lambda: stage.engine.idle)
    assert stage.targets.names("one") == ["first", "second"]
