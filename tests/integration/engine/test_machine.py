"""The engine against a small model of it: any order of puts, answers, clocks, kills and words of people, on one target.

The model knows nothing of lanes, rows or windows: only which changes there are, what the far side said, and the rules
of the breaker as the documentation has them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import DeliveryState
from universal_registry.propagation.lanes.lane_command import Action, Command
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
LONGEST_OPEN = 15 * MINUTE
ANSWERS: dict[str, Outcome] = {
    "ok": Accepted(status=200, milliseconds=1.0),
    "down": Failed(reason="down", status=503, milliseconds=1.0),
    "busy": Failed(reason="busy", status=429, milliseconds=1.0, retry_after=30 * SECOND),
    "poison": Rejected(reason="poison", status=422, milliseconds=1.0),
    "refused": Failed(reason="who are you", status=401, milliseconds=1.0),
    "gone": Failed(reason="bye", status=410, milliseconds=1.0),
}
Answer = TypeVar("Answer")


@dataclass
class Attempt:
    """One attempt as the far side sees it."""

    delivery: str
    key: str
    revision: int
    probe: bool
    answer: asyncio.Future[Outcome]


@dataclass
class Model:
    """What must be so."""

    puts: dict[str, list[int]] = field(default_factory=dict)
    arrived: dict[str, list[int]] = field(default_factory=dict)
    dead: set[tuple[str, int]] = field(default_factory=set)
    breaker: str = "closed"
    failures: int = 0
    trips: int = 0
    until: datetime | None = None
    resting: bool = False  # open since the target refused us
    forced: bool = False
    ramp: int = 0
    paused: bool = False
    stopped: bool = False  # gone or disabled
    pause_until: datetime | None = None

    def may_begin(self, now: datetime) -> str:
        """Why no attempt may begin; `probe` where one may, as the probe."""
        if self.paused or self.stopped:
            return "held"
        if self.pause_until is not None and now < self.pause_until:
            return "asked to wait"
        if self.breaker == "closed":
            return ""
        if self.until is not None and now < self.until:
            return self.breaker
        return "probe"

    def settle(self, word: str, probe: bool, now: datetime) -> None:
        """One attempt was answered."""
        if word == "ok":
            self._ok(probe)
        elif word == "poison":
            self._undecided(probe, now)
        elif word == "gone":
            self._undecided(probe, now)
            self.stop()
        elif word == "refused":
            if self.breaker == "closed" or (self.breaker == "half-open" and probe):
                self.breaker, self.trips, self.until, self.resting = (
                    "open",
                    max(self.trips, 1),
                    now + LONGEST_OPEN,
                    True,
                )
        else:
            self._failed(probe, now)
            if word == "busy":
                self.pause_until = max(self.pause_until or now, now + 30 * SECOND)

    def _ok(self, probe: bool) -> None:
        if self.breaker == "closed":
            self.failures = self.trips = 0
            self.ramp = 0 if self.ramp + 1 >= 2 else self.ramp
        elif self.breaker == "half-open" and probe:
            self.close()

    def _undecided(self, probe: bool, now: datetime) -> None:
        if self.breaker == "half-open" and probe:
            self.breaker, self.until = "open", now

    def _failed(self, probe: bool, now: datetime) -> None:
        self.failures += 1
        if (self.breaker == "closed" and self.failures >= 5) or (self.breaker == "half-open" and probe):
            self.trips += 1
            self.breaker, self.resting = "open", False
            self.until = now + min(MINUTE * 2 ** (self.trips - 1), LONGEST_OPEN)

    def stop(self) -> None:
        self.stopped, self.resting = True, False  # one reason at a time

    def close(self) -> None:
        self.breaker, self.failures, self.trips, self.until = "closed", 0, 0, None
        self.resting, self.forced, self.ramp = False, False, 1

    def clock_went_back(self, now: datetime, back: timedelta, failed_at: datetime | None) -> None:
        if self.until is not None and not self.forced:
            longest = LONGEST_OPEN if self.resting else min(MINUTE * 2 ** max(self.trips - 1, 0), LONGEST_OPEN)
            self.until = min(self.until, now + longest)
        if self.pause_until is not None and failed_at is not None and failed_at > now:
            self.pause_until = now + max(self.pause_until - failed_at, timedelta(0))


class Far:
    """A transport whose answers the machine gives."""

    name = "webhook"

    def __init__(self, begins: Callable[[str, str, int], Attempt]) -> None:
        self.begins = begins
        self.violations: list[str] = []
        self.open: list[Attempt] = []

    async def send(self, envelope: Envelope) -> Outcome:
        event = orjson.loads(envelope.body)
        key, revision = event["subject"].rsplit("/", 1)[-1], int(event["sequence"].split(".")[0])
        try:
            attempt = self.begins(dict(envelope.headers)["webhook-id"], key, revision)
        except AssertionError as error:  # the engine would take it for an answer
            self.violations.append(str(error))
            raise
        self.open.append(attempt)
        try:
            return await attempt.answer
        finally:
            self.open.remove(attempt)

    async def close(self) -> None:
        """Nothing is open."""


class DeliveryMachine(RuleBasedStateMachine):
    """Made with the Stage of this folder's fixtures."""

    stage_type: Any

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.model = Model()
        self.far = Far(self.begins)
        self.last_failure: datetime | None = None
        self.maybe_sent: set[str] = set()
        self.delivered: set[str] = set()
        self.failed: dict[str, int] = {}
        self.planned: dict[tuple[str, int], datetime] = {}
        self.go(self._open())

    async def _open(self) -> None:
        self.stage = self.stage_type(Path(self.folder))
        self.stage.targets = self.far
        await self._start()
        await self.stage.target("one")
        await self.stage.route("all", "one")
        await self.stage.settle()

    async def _start(self) -> None:
        await self.stage.start(retry=RetrySettings(jitter_enabled=False, auto_disable_days=0.0))

    def go(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    @property
    def now(self) -> datetime:
        return self.stage.world.moment

    # --- what the far side sees -----------------------------------------------------------------------------------

    def begins(self, delivery: str, key: str, revision: int) -> Attempt:
        model, mine = self.model, [each for each in self.far.open if each.key == key]
        why = model.may_begin(self.now)
        assert why in ("", "probe"), f"an attempt began though: {why}"
        assert not mine, "two attempts at one record at once"
        if why == "probe":
            assert model.breaker != "half-open" or not any(each.probe for each in self.far.open), "a second probe"
            model.breaker, model.until = "half-open", self.now + MINUTE
        else:
            assert len(self.far.open) < (model.ramp or 2), "more at once than may be"
        before = model.puts[key][: model.puts[key].index(revision)]
        for each in before:
            assert each in model.arrived.get(key, []) or (key, each) in model.dead, "an earlier change was passed over"
        assert delivery not in self.delivered or delivery in self.maybe_sent, "sent again after it had arrived"
        future = asyncio.get_running_loop().create_future()
        return Attempt(delivery, key, revision, why == "probe", future)

    # --- rules ------------------------------------------------------------------------------------------------------

    @rule(key=st.sampled_from("abc"))
    def put(self, key: str) -> None:
        async def put() -> None:
            number = sum(map(len, self.model.puts.values()))
            await self.stage.alias(key, str(number))
            head = await self.stage.service.log.head()
            self.model.puts.setdefault(key, []).append(head.revision)
            self.planned[key, head.revision] = self.now
            await self.stage.settle()

        self.go(put())
        self.check()

    @precondition(lambda self: self.far.open)
    @rule(word=st.sampled_from([*ANSWERS, "ok", "down", "down", "down"]), which=st.integers(0, 9))
    def answer(self, word: str, which: int) -> None:
        attempt = self.far.open[which % len(self.far.open)]
        self.settled(attempt, word)
        attempt.answer.set_result(ANSWERS[word])
        self.go(self.stage.settle())
        self.check()

    def settled(self, attempt: Attempt, word: str) -> None:
        if word == "ok":
            self.model.arrived.setdefault(attempt.key, []).append(attempt.revision)
            self.delivered.add(attempt.delivery)
        elif word == "poison" or self.given_up(attempt, word):
            self.model.dead.add((attempt.key, attempt.revision))
        if word not in ("ok", "poison"):
            self.last_failure = self.now
        self.model.settle(word, attempt.probe, self.now)

    def given_up(self, attempt: Attempt, word: str) -> bool:
        """Whether that was one failure too many: the fourteenth, or one past the fast phase at the age of a week."""
        if word not in ("down", "busy"):
            return False
        self.failed[attempt.delivery] = self.failed.get(attempt.delivery, 0) + 1
        count, age = self.failed[attempt.delivery], self.now - self.planned[attempt.key, attempt.revision]
        return count >= 14 or (count > 5 and age >= timedelta(days=7))

    @rule(seconds=st.sampled_from([0.5, 2, 20, 70, 1000, 40_000]))
    def time_passes(self, seconds: float) -> None:
        self.go(self.stage.wait(seconds))
        self.check()

    @rule(hours=st.sampled_from([-1, 1]))
    def clock_is_set(self, hours: int) -> None:
        self.stage.world.moment += hours * HOUR
        if hours < 0:
            self.model.clock_went_back(self.now, HOUR, self.last_failure)
            if self.last_failure is not None and self.last_failure > self.now:
                self.last_failure = self.now
        self.go(self.stage.settle())
        self.check()

    @rule()
    def kill(self) -> None:
        self.maybe_sent.update(each.delivery for each in self.far.open)
        self.go(self._restart())
        self.check()

    async def _restart(self) -> None:
        await self._start()
        if self.model.breaker == "half-open":  # that probe may have been stored, or not: what counts is that one comes
            lane = await self.stage.lane("one")
            assert lane.open_until is not None
            assert lane.open_until <= self.now + HOUR
            self.model.breaker, self.model.until = "open", lane.open_until
        rows = await self.stage.lanes.deliveries()  # three daemons that ended over one are enough
        self.model.dead |= {(row.name, row.revision) for row in rows if row.state is DeliveryState.DEAD}
        await self.stage.settle()

    @rule(action=st.sampled_from([each for each in Action if each not in (Action.REDRIVE, Action.SKIP)]))
    def somebody_says(self, action: Action) -> None:
        model = self.model
        match action:
            case Action.PAUSE:
                model.paused = True
            case Action.RESUME:
                self._resume()
            case Action.DISABLE:
                model.stop()
            case Action.ENABLE:
                model.stopped = False
                self._resume()
                self._reset()
            case Action.RESET:
                model.pause_until = None
                self._reset()
            case Action.OPEN:
                model.breaker, model.until, model.forced = "open", self.now + 10 * MINUTE, True
                model.trips = max(model.trips, 1)
        self.go(self.tell(action))
        self.check()

    def _resume(self) -> None:
        self.model.paused, self.model.pause_until = False, None
        if self.model.resting:
            self._reset()

    def _reset(self) -> None:
        if self.model.breaker != "closed" or self.model.failures:
            self.model.close()

    async def tell(self, action: Action) -> None:
        lane = await self.stage.lane("one")
        until = self.now + 10 * MINUTE if action is Action.OPEN else None
        command = Command(lane_id=lane.lane_id, action=action, actor="ann", at=self.now, until=until)
        await self.stage.lanes.give(command)
        self.stage.engine.look()
        await self.stage.settle()

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        assert self.far.violations == []
        lane = self.go(self.stage.lane("one"))
        rows = self.go(self.stage.lanes.deliveries())
        assert self.go(self.stage.lanes.commands()) == []
        self.model.dead |= {(row.name, row.revision) for row in rows if row.state is DeliveryState.DEAD}
        if self.model.breaker != "half-open":  # a probe that is under way is not stored, and need not be
            assert lane.breaker.value == self.model.breaker
            assert lane.failures == self.model.failures
        if self.model.breaker == "open":
            assert lane.open_until is not None
            assert self.model.until is not None
            assert abs(lane.open_until - self.model.until) <= timedelta(milliseconds=2)
        for key, arrived in self.model.arrived.items():
            assert arrived == sorted(arrived), f"{key} came out of order"
        assert all(row.attempts <= 14 for row in rows)

    def teardown(self) -> None:
        try:
            self.go(self.everything_comes_to_an_end())
        finally:
            self.go(self.stage.close())
            self.runner.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def everything_comes_to_an_end(self) -> None:
        """Whatever has happened: once people let it go on and the target is well, each change is there or was given
        up, and says so."""
        self.model.stopped = False
        self._resume()
        self._reset()
        await self.tell(Action.ENABLE)
        for _ in range(400):
            await self.stage.settle()
            if self.far.open:
                for attempt in list(self.far.open):
                    self.settled(attempt, "ok")
                    attempt.answer.set_result(ANSWERS["ok"])
                continue
            if self.all_done(await self.stage.lanes.deliveries()):
                break
            self.stage.world.moment += timedelta(hours=2)
        rows = await self.stage.lanes.deliveries()
        assert self.all_done(rows), [(row.key, row.state, row.reason, row.next_at) for row in rows]

    def all_done(self, rows: list[Any]) -> bool:
        self.model.dead |= {(row.name, row.revision) for row in rows if row.state is DeliveryState.DEAD}
        if any(row.state is not DeliveryState.DEAD for row in rows):
            return False
        return all(
            revision in self.model.arrived.get(key, []) or (key, revision) in self.model.dead
            for key, revisions in self.model.puts.items()
            for revision in revisions
        )


@pytest.mark.timeout(900)  # a failure is made smaller, which takes its time
def test_the_engine_does_what_the_model_says(stage_type: type) -> None:
    machine = type("Machine", (DeliveryMachine,), {"stage_type": stage_type})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("MACHINE_EXAMPLES", "15")),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
