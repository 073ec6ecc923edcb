"""Targets that hang take nothing from those that answer; a herd is let in at the rate that the target allows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import Breaker
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.registry.service import Actor

OPERATOR = Actor("uid:1000", admin=True)
TICK = 0.1
TIMEOUT = 30.0
Stage = Any  # the class of the fixture, which pytest alone can import


class Clockwork:
    """A transport on the test's clock: healthy targets answer a tick after they were asked, others when their time is
    up. `began`: event -> when it was put; `took`: for how long each healthy delivery was on its way."""

    name = "webhook"

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.hanging: set[str] = set()
        self.began: dict[str, datetime] = {}
        self.took: list[float] = []
        self.arrivals: list[datetime] = []
        self.under_way: Counter[str] = Counter()
        self.most = 0
        self._due: list[tuple[datetime, asyncio.Future[Outcome], Outcome]] = []

    async def send(self, envelope: Envelope) -> Outcome:
        target = envelope.url.rsplit("/", 1)[-1]
        self.under_way[target] += 1
        self.most = max(self.most, self.under_way.total())
        answer = asyncio.get_running_loop().create_future()
        hangs = target in self.hanging
        outcome: Outcome = Accepted(status=200, milliseconds=1.0)
        if hangs:
            outcome = Failed(reason="no answer in time", status=None, milliseconds=TIMEOUT * 1000)
        self._due.append((self._now() + timedelta(seconds=TIMEOUT if hangs else TICK), answer, outcome))
        try:
            found: Outcome = await answer
        finally:
            self.under_way[target] -= 1
        if isinstance(found, Accepted):
            self.arrivals.append(self._now())
            key = orjson.loads(envelope.body)["subject"].rsplit("/", 1)[-1]
            if key in self.began:
                self.took.append((self._now() - self.began[key]).total_seconds())
        return found

    def answer_what_is_due(self) -> None:
        """Once the clock has been moved."""
        due = [each for each in self._due if each[0] <= self._now()]
        self._due = [each for each in self._due if each[0] > self._now()]
        for _, answer, outcome in due:
            if not answer.done():
                answer.set_result(outcome)

    async def close(self) -> None:
        """Nothing is open."""


async def pass_time(stage: Stage, far: Clockwork, seconds: float, tick: float = TICK) -> None:
    for _ in range(round(seconds / tick)):
        stage.world.moment += timedelta(seconds=tick)
        far.answer_what_is_due()
        for _ in range(3):
            await stage.step()


async def p99(stage: Stage, healthy: int, hanging: int, seconds: int) -> tuple[float, int]:
    """Each healthy target gets an event every two seconds, one that hangs too. The slowest of a hundred, and how many
    were under way at most."""
    far = Clockwork(lambda: stage.world.moment)
    stage.targets = far
    await stage.start()
    well = [f"well{index}" for index in range(healthy)]
    sick = [f"sick{index}" for index in range(hanging)]
    for name in well:
        await stage.target(name)
    for name in well:
        await stage.event(f"first-{name}", {}, name)
    await pass_time(stage, far, 5)
    far.hanging |= set(sick)
    for name in sick:
        await stage.target(name)
    rounds = seconds // 2
    for turn in range(rounds):
        for part in range(20):
            for index, name in enumerate([*well, *sick]):
                if index % 20 == part:
                    key = f"e{turn}-{name}"
                    far.began[key] = stage.world.moment
                    await stage.event(key, {}, name)
            await pass_time(stage, far, TICK)
    await pass_time(stage, far, 5)
    assert len(far.took) == rounds * healthy, "every healthy delivery has arrived"
    return sorted(far.took)[int(len(far.took) * 0.99)], far.most


@pytest.mark.parametrize("hanging", [1, 10, 50])
async def test_hanging_targets_do_not_slow_the_healthy_ones(stage_type: Any, tmp_path: Any, hanging: int) -> None:
    found = []
    for count in (0, hanging):
        folder = tmp_path / str(count)
        folder.mkdir()
        stage = stage_type(folder)
        found.append(await p99(stage, healthy=100, hanging=count, seconds=20))
        await stage.close()
    (alone, most_alone), (beside, most) = found
    assert most_alone <= 10
    assert most <= 10, "whoever hangs, no more than ten are under way"
    assert beside <= 2 * alone, (alone, beside)


async def test_a_herd_after_an_outage_comes_at_the_rate_and_nothing_is_given_up(stage: Stage) -> None:
    """R12: ten thousand wait; the target is back after ten minutes and takes 500 a second."""
    rate, count = 500, 10_000
    far = Clockwork(lambda: stage.world.moment)
    stage.targets = far
    await stage.start(max_in_flight=200, max_in_flight_per_target=200, retry=RetrySettings())
    await stage.target("one", rate=rate)
    await stage.route("all", "one")
    await stage.settle()
    far.hanging.add("one")
    for part in range(count // 500):
        await stage.aliases(500, prefix=f"p{part:02}-")
    for _ in range(20):
        stage.world.moment += timedelta(seconds=31)
        far.answer_what_is_due()
        await stage.settle()
    lane = await stage.lane("one")
    assert lane.breaker is not Breaker.CLOSED
    far.hanging.clear()
    far.arrivals.clear()
    began = stage.world.moment
    while len(far.arrivals) < count and stage.world.moment - began < timedelta(minutes=20):
        await pass_time(stage, far, 1, tick=0.02)
    assert len(far.arrivals) == count
    assert (await stage.lanes.depth()).dead == 0
    starts = [each - timedelta(seconds=TICK) for each in far.arrivals]
    in_any_second = max(sum(1 for each in starts if at <= each < at + timedelta(seconds=1)) for at in set(starts))
    assert in_any_second <= rate
    warm, end = min(starts) + timedelta(seconds=3), max(starts)  # it starts slowly
    taken = sum(warm <= each < end for each in starts)
    assert taken / (end - warm).total_seconds() >= 0.9 * rate, "and nearly all of the rate is used"


async def test_a_rate_is_kept_over_a_restart(stage: Stage) -> None:
    far = Clockwork(lambda: stage.world.moment)
    stage.targets = far
    await stage.start()
    await stage.target("one", rate=2)
    await stage.route("all", "one")
    await stage.aliases(40)
    await pass_time(stage, far, 1)
    for _ in range(8):
        await stage.start()
        await pass_time(stage, far, 0.5)
    assert len(far.arrivals) <= 2 * 5 + 1
    await pass_time(stage, far, 20)
    assert len(far.arrivals) == 40


async def test_a_token_that_comes_just_after_it_was_asked_for_is_not_waited_for(stage: Stage) -> None:
    far = Clockwork(lambda: stage.world.moment)
    stage.targets = far
    await stage.start()
    await stage.target("one", rate=10)
    await stage.route("all", "one")
    await stage.aliases(5)
    await pass_time(stage, far, 0.01, tick=0.01)
    engine = stage.engine
    stage.world.moment += timedelta(seconds=0.05)
    assert engine.take() == [], "half of a token is there"
    wait = engine.next_wake()
    assert 0 < wait < 0.1
    stage.world.moment += timedelta(seconds=wait + 0.001)
    assert engine.next_wake() == 0.0, "it has come meanwhile: nobody else would say so"


async def test_one_target_never_has_more_under_way_than_its_part(stage: Stage) -> None:
    far = Clockwork(lambda: stage.world.moment)
    stage.targets = far
    await stage.start()
    for name in ("one", "two"):
        await stage.target(name)
    await stage.route("all", "one", "two")
    await stage.aliases(50)
    most: Counter[str] = Counter()
    for _ in range(40):
        await pass_time(stage, far, TICK)
        most |= far.under_way
    assert dict(most) == {"one": 2, "two": 2}


async def test_weights_share_the_slots(stage: Stage) -> None:
    far = Clockwork(lambda: stage.world.moment)
    stage.targets = far
    await stage.start(max_in_flight=4, max_in_flight_per_target=4)
    await stage.target("light")
    await stage.target("heavy", weight=3)
    await stage.event("first", {}, "light", "heavy")
    await pass_time(stage, far, 1)
    await stage.route("all", "light", "heavy")
    await stage.aliases(400)
    taken: Counter[str] = Counter()
    for _ in range(100):
        before = {name: (await stage.lane(name)).delivered for name in ("light", "heavy")}
        await pass_time(stage, far, TICK)
        for name, delivered in before.items():
            taken[name] += (await stage.lane(name)).delivered - delivered
    assert 2.5 <= taken["heavy"] / taken["light"] <= 3.5
