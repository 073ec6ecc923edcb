"""A registry at work in one process, which kills itself (-9) at a named point of the delivery path.

    child_crash.py work|recover POINT OCCURRENCE [BROKEN]

`work` runs a script that comes by every point; `recover` is the next daemon: it goes on until nothing moves. POINT "-":
it is never killed. What happened outside (each attempt and its answer) and what was promised goes to the file
`far.jsonl` in the home, which no kill takes back. The points are put here around the product's own methods, in this
process; the clock is this file's, so nobody waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from child_broken import moves_before_answer
from msgspec.structs import replace

from universal_registry.app import App, open_app
from universal_registry.environment import load_settings
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.engine import planner
from universal_registry.propagation.engine.session_steps import Conduct
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.lane import DeliveryState, Mark, Settlements, Verb
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.routing.replay import Repeater
from universal_registry.propagation.verbs.sessions import ReplayAsk
from universal_registry.propagation.verbs.targets import TargetOptions
from universal_registry.registry.service import Actor
from universal_registry.storage.lanes_postgres import PgLanes
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.writer import GroupWriter
from universal_registry.transports import webhook

OPERATOR = Actor("uid:1000", admin=True)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RECOVERY = timedelta(hours=1)
"""The next daemon starts so much later: what the dead one held on PostgreSQL has run out by then."""
SOURCE = "service/default/hub"
TARGETS = ("good", "flaky", "picky", "slow", "down", "chained")


class StageWorld(SystemWorld):
    """A clock that the script moves. Ids and chance are real."""

    def __init__(self, moment: datetime = START) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


class Diary:
    """What cannot be taken back: one line of JSON for each thing that happened."""

    def __init__(self, home: Path) -> None:
        self._path = home / "far.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, what: str, **fields: Any) -> None:
        os.write(self._file, orjson.dumps({"what": what, **fields}) + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._path.read_bytes().splitlines()]

    def close(self) -> None:
        os.close(self._file)


class Points:
    """Names each point as it is passed, and ends the process at one of them."""

    def __init__(self, fatal: str, occurrence: int) -> None:
        self._fatal, self._occurrence = fatal, occurrence
        self._passed: Counter[str] = Counter()

    def pass_by(self, name: str) -> None:
        self._passed[name] += 1
        print(name, flush=True)
        if (name, self._passed[name]) == (self._fatal, self._occurrence):
            os.kill(os.getpid(), signal.SIGKILL)


class Far:
    """The far side. `down` never answers; `flaky` and `chained` fail each delivery once; `picky` will not have what is
    called poison the first time; `slow` answers after the others."""

    name = "webhook"

    def __init__(self, points: Points, diary: Diary) -> None:
        self._points, self._diary = points, diary
        self._tried = Counter(line["id"] for line in diary.lines() if line["what"] == "attempt")

    async def send(self, envelope: Envelope) -> Outcome:
        self._points.pass_by("before send")
        target, headers = envelope.url.rsplit("/", 1)[-1], dict(envelope.headers)
        delivery, event = headers["webhook-id"], orjson.loads(envelope.body)
        outcome = self._answer(target, event["subject"], self._tried[delivery])
        self._tried[delivery] += 1
        self._diary.note(
            "attempt", target=target, id=delivery, place=event["sequence"], subject=event["subject"],
            accepted=isinstance(outcome, Accepted), replay=headers.get("replay-of", ""),
        )  # fmt: skip
        for _ in range(30 if target == "slow" else 0):
            await asyncio.sleep(0)
        self._points.pass_by("after send, answer received")
        return outcome

    def _answer(self, target: str, subject: str, tried: int) -> Outcome:
        if target == "down":
            return Failed(reason="connection refused", status=None, milliseconds=1.0)
        if target in ("flaky", "chained") and not tried:
            return Failed(reason="not now", status=503, milliseconds=1.0)
        if target == "picky" and subject.endswith("/poison") and not tried:
            return Rejected(reason="poison", status=422, milliseconds=1.0)
        return Accepted(status=200, milliseconds=1.0)

    async def close(self) -> None:
        """Nothing is open."""


# --- points -----------------------------------------------------------------------------------------------------------


def watch(points: Points, owner: Any, name: str, label: Callable[..., str]) -> None:
    """Put a point before, and one after, each call of a coroutine method; `label` names it from its arguments."""
    inner = getattr(owner, name)

    async def call(self: Any, *args: Any, **named: Any) -> Any:
        word = label(*args)
        points.pass_by(f"before {word}")
        result = await inner(self, *args, **named)
        points.pass_by(f"after {word}")
        return result

    setattr(owner, name, call)


def commit_name(settlements: Settlements) -> str:
    """What a commit of the propagation store is about, by the weightiest thing in it."""
    if settlements.obeyed:
        return f"commit of {settlements.deeds[0].action}"
    if any(row.state is DeliveryState.SENDING for row in settlements.upserts):
        return "commit of a claim"
    if settlements.attempts:
        return "commit of a failure"
    if settlements.removed:
        return "commit of a row that is done"
    if settlements.sessions:
        return "commit of a session's step"
    return "commit of a lane's move" if settlements.lanes else "commit of something else"


def set_points(points: Points, diary: Diary) -> None:
    """Around every method by which a delivery gets on."""
    watch(points, planner.Planner, "plan", lambda *_: "plan")
    watch(points, Repeater, "planned", lambda *_: "a step of a replay")
    watch(points, GroupWriter, "_commit", lambda *_: "commit of the registry")
    watch(points, Conduct, "_done", lambda control, _: f"session {control.verb}")
    for store in (SqliteLanes, PgLanes):
        watch(points, store, "claim", lambda *_: "taking over lanes")
        watch(points, store, "give", lambda command: f"giving {command.action}")
        watch(points, store, "undone", lambda *_: "a page of what a word is about")
        watch(points, store, "release", lambda *_: "letting hops go")
        _watch_apply(points, diary, store)
    inside = SqliteLanes._put_sessions

    def put_sessions(self: SqliteLanes, sessions: Any) -> None:
        points.pass_by("inside a commit")
        inside(self, sessions)

    SqliteLanes._put_sessions = put_sessions  # type: ignore[method-assign]


def _watch_apply(points: Points, diary: Diary, store: Any) -> None:
    inner = store.apply

    async def apply(self: Any, settlements: Settlements) -> None:
        word = commit_name(settlements)
        points.pass_by(f"before {word}")
        diary.note("commit begun")
        await inner(self, settlements)
        diary.note("committed")
        points.pass_by(f"after {word}")

    store.apply = apply


# --- protections taken away -------------------------------------------------------------------------------------------


def never_moves() -> None:
    """The lane's position is never stored, so that a successor sends all of it again."""

    def commit_point(self: LaneRun) -> tuple[Mark, list[Any]]:
        rows, self._unstored = list(self._unstored.values()), {}
        self._unstored_keys.clear()
        return Mark(self.lane.position, self.lane.hash8, self.lane.backfill), rows

    LaneRun.commit_point = commit_point  # type: ignore[method-assign]


def other_ids() -> None:
    """Each daemon gives its deliveries ids of its own."""
    real, own = planner.plan, os.urandom(6).hex()

    def plan(*args: Any, **named: Any) -> Any:
        return [replace(each, delivery_id=each.delivery_id[:24] + own) for each in real(*args, **named)]

    planner.plan = plan  # type: ignore[attr-defined]


BROKEN = {"moves-before-answer": moves_before_answer, "never-moves": never_moves, "other-ids": other_ids}


# --- the workers' loop, in our hands ----------------------------------------------------------------------------------


class Stage:
    """An opened registry whose engine is driven step by step."""

    def __init__(self, app: App, world: StageWorld, diary: Diary) -> None:
        assert app.engine is not None
        self.app, self.world, self.diary, self.engine = app, world, diary, app.engine
        self._jobs: set[asyncio.Task[None]] = set()

    async def _run(self, job: Any) -> None:
        await self.engine.run(job)
        self.diary.note("ended", id=job.delivery.delivery_id)

    async def step(self) -> bool:
        """Plan, settle, start; then wait for the first attempt to end. True: something moved."""
        while await self.engine.plan():
            pass
        moved = self.engine.unsettled
        if moved:
            await self.engine.settle()
        self._jobs |= {asyncio.create_task(self._run(job)) for job in self.engine.take()}
        if not self._jobs:
            return moved
        done, self._jobs = await asyncio.wait(self._jobs, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return True

    async def settle(self, seconds: float = 0) -> None:
        """Let time pass, then do everything that is due."""
        self.world.moment += timedelta(seconds=seconds)
        quiet = 0
        while quiet < 3:
            quiet = 0 if await self.step() else quiet + 1


async def work(stage: Stage) -> None:
    """Comes by every point. Each thing that was acknowledged is noted."""
    await stage.settle()
    await _lines(stage)
    chain = await _event(stage, "chain", ["chained", "slow"])
    for seconds in (0, 1.2, 2.5):
        await stage.settle(seconds)
    await _words_to_lanes(stage)
    await _words_to_sessions(stage)
    control = stage.app.control
    again = await control.replay(ReplayAsk(session=chain), actor=OPERATOR)
    stage.diary.note("promised", session=again["session"])
    standing = next(each["session"] for each in await control.sessions() if each["standing"])
    await control.replay(ReplayAsk(session=standing), actor=OPERATOR)
    for seconds in (0, 1.5, 2.5, 5, 6):
        await stage.settle(seconds)


async def _lines(stage: Stage) -> None:
    for name in ("a", "b", "poison"):
        await stage.app.service.put({"kind": "alias", "name": name, "spec": {"command": name}}, actor=OPERATOR)
        await stage.settle()
    batch = [{"op": "put", "kind": "alias", "name": f"n{n}", "spec": {"command": "n"}} for n in range(6)]
    await stage.app.service.batch(batch, actor=OPERATOR)
    for seconds in (0, 1.2, 2.5, 5):
        await stage.settle(seconds)


async def _event(stage: Stage, mode: str, targets: list[str], *, promised: bool = True) -> str:
    made = await stage.app.control.propagate(mode, SOURCE, targets, {"an": "event"}, actor=OPERATOR)
    if promised:
        stage.diary.note("promised", session=made["session"])
    return str(made["session"])


async def _words_to_lanes(stage: Stage) -> None:
    control, note = stage.app.control, stage.diary.note
    (dead,) = await stage.app.lanes.deliveries(states=[DeliveryState.DEAD])
    await control.tell_delivery(dead.delivery_id, Action.REDRIVE, actor=OPERATOR)
    note("redriven", id=dead.delivery_id)
    await stage.settle(1.5)
    await control.tell_target("system", "down", Action.RESET, actor=OPERATOR)
    await stage.settle(1.5)
    await control.tell_target("system", "down", Action.OPEN, actor=OPERATOR, duration=timedelta(hours=9))
    note("opened")
    await stage.settle(1.5)


async def _words_to_sessions(stage: Stage) -> None:
    control = stage.app.control
    once = await _event(stage, "unidirectional", ["good"], promised=False)
    await control.tell_session(once, Verb.PAUSE, actor=OPERATOR)
    stage.diary.note("paused", session=once)
    await stage.settle(1.5)
    await control.tell_session(once, Verb.RESUME, actor=OPERATOR)
    stage.diary.note("promised", session=once)
    await stage.settle(1.5)
    held = await _event(stage, "unidirectional", ["down"], promised=False)
    await stage.settle(1.5)
    await control.tell_session(held, Verb.CANCEL, actor=OPERATOR)
    stage.diary.note("cancelled", session=held)
    await stage.settle(1.5)


async def recover(stage: Stage) -> None:
    """Go on until all that can be delivered is."""
    for seconds in (0, 1.5, 2.5, 5, 6, 10, 20, 40, 61, 61, 301, 301):
        await stage.settle(seconds)


async def prepare(settings: Settings) -> None:
    """Targets, and to each but the last a route for all aliases."""
    app = await open_app(settings, world=StageWorld(), create=True)
    try:
        for name in TARGETS:
            await app.control.add_target(
                name, f"http://127.0.0.1:9/{name}", options=TargetOptions(seal="never"),
                select=None if name == TARGETS[-1] else "kind=alias", actor=OPERATOR,
            )  # fmt: skip
    finally:
        await app.close()


async def main() -> None:
    part, fatal, occurrence, *broken = sys.argv[1:]
    settings = load_settings()
    points, diary = Points(fatal, int(occurrence)), Diary(settings.home)
    diary.note("began")
    for name in broken:
        BROKEN[name]()
    world = StageWorld(START + timedelta(minutes=1) + (RECOVERY if part == "recover" else timedelta(0)))
    set_points(points, diary)
    webhook.WebhookTransport = lambda *_: Far(points, diary)  # type: ignore[assignment,misc]
    app = await open_app(settings, world=world)
    assert app.engine is not None
    await app.engine.start()
    await (work if part == "work" else recover)(Stage(app, world, diary))
    await app.engine.stop()
    await app.close()


if __name__ == "__main__":
    asyncio.run(main())
