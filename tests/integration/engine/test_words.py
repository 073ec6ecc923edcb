"""What people say to sessions reaches every delivery once, wherever it stands just then, and leaves no lane behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from universal_registry.kernel.errors import StorageUnavailable
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.engine import session_recall as recall
from universal_registry.propagation.lanes.lane import DeliveryState, Keep, Verb
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.lanes.outcome import Failed, Rejected
from universal_registry.registry.service import Actor

Stage = Any  # the class of the fixture, which pytest alone can import
OPERATOR = Actor("uid:1000", admin=True)


@pytest.fixture
def control(stage: Stage) -> PropagationControl:
    return control_of(stage)


def control_of(stage: Stage) -> PropagationControl:
    return PropagationControl(
        stage.service, stage.lanes, {"webhook": stage.targets}, stage.engine, stage.world, stage.settings
    )


async def begin(control: PropagationControl, *targets: str, source: str = "hub", **more: Any) -> str:
    """An event to the targets, or with `data=None` a standing session."""
    mode = "unidirectional" if len(targets) == 1 else "multicast"
    data = more.pop("data", 1)
    begun = await control.propagate(mode, source, list(targets), data, actor=OPERATOR, **more)
    return str(begun["session"])


async def say(stage: Stage, control: PropagationControl, verb: Verb, *sessions: str) -> None:
    for session in sessions:
        await control.tell_session(session, verb, actor=OPERATOR)
    await stage.settle()


async def tell(stage: Stage, control: PropagationControl, target: str, action: Action) -> None:
    await control.tell_target("system", target, action, actor=OPERATOR)
    stage.engine.look()
    await stage.settle()


async def pass_time(stage: Stage, seconds: float, steps: int = 20) -> None:
    """Step by step; a storage error in between is met as the workers meet it: by beginning again."""
    for _ in range(steps):
        stage.world.moment += timedelta(seconds=seconds / steps)
        try:
            await stage.settle()
        except StorageUnavailable:
            continue


def failing(owner: Any, name: str, times: int = 1) -> list[int]:
    """Let the next calls of a method fail as a database does that is away; the list holds how many are left."""
    real: Callable[..., Awaitable[Any]] = getattr(owner, name)
    left = [times]

    async def call(*args: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise StorageUnavailable("the database is away")
        return await real(*args, **named)

    setattr(owner, name, call)
    return left


async def keeps_count(stage: Stage, target: str) -> int:
    """The live rows of a lane, of which the daemon and the store must know the same number."""
    run = next(run for run in stage.engine._runs.values() if run.address == f"system/{target}")
    lane = await stage.lane(target)
    assert run.rows == lane.rows
    return int(lane.rows)


# --- sent at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Action.RESUME, Action.ENABLE, Action.RESET])
async def test_what_waits_as_its_target_asked_for_is_sent_when_somebody_says_so(
    stage: Stage, control: PropagationControl, action: Action
) -> None:
    await stage.start()
    control = control_of(stage)
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    wish = timedelta(hours=24)
    stage.targets.answers["one"] = [Failed(reason="busy", status=503, milliseconds=1.0, retry_after=wish)]
    await stage.alias("x")
    await stage.settle()
    await pass_time(stage, 3600)
    assert stage.targets.names("one") == []
    await tell(stage, control, "one", action)
    assert stage.targets.names("one") == ["x"]
    assert await keeps_count(stage, "one") == 0


# --- cancelled ------------------------------------------------------------------------------------------------------


async def test_a_lane_at_its_bound_goes_on_when_what_filled_it_is_cancelled(stage: Stage) -> None:
    await stage.start(rows_per_lane=3)
    control = control_of(stage)
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    stage.targets.down = {"one"}
    sessions = [await begin(control, "one", data=number) for number in range(3)]
    await stage.settle()
    assert await keeps_count(stage, "one") == 3
    await say(stage, control, Verb.CANCEL, *sessions)
    assert await keeps_count(stage, "one") == 0
    stage.targets.down = set()
    await stage.alias("x")
    await pass_time(stage, 3600)
    assert stage.targets.names("one") == ["x"]


async def test_a_standing_session_is_in_sync_again_when_what_waited_is_cancelled(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    standing = await begin(control, "one", source="kind=alias", data=None)
    await stage.settle()
    event = await begin(control, "one")
    await stage.settle()
    assert stage.sessions()[standing] == "degraded"
    await say(stage, control, Verb.CANCEL, event)
    await stage.wait(2)
    assert await keeps_count(stage, "one") == 0
    assert stage.sessions() == {standing: "in_sync", event: "cancelled"}


async def test_a_later_line_is_sent_when_the_one_it_waits_for_is_cancelled(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    await stage.settle()
    slow, real, came = asyncio.Event(), stage.targets.send, []

    async def send(envelope: Any) -> Any:
        event = orjson.loads(envelope.body)
        if event["subject"].endswith("/hub") and event["data"] == 1:
            await slow.wait()
        came.append((event["subject"].rsplit("/", 1)[-1], event["data"]))
        return await real(envelope)

    stage.targets.send = send
    await begin(control, "one", data=1)
    await stage.settle()
    cancelled = await begin(control, "one", data=2)
    await stage.event("z", 1, "one")
    last = await begin(control, "one", data=3)
    await stage.settle()
    assert came == [("z", 1)], "it made rows of what it overtook"
    await say(stage, control, Verb.CANCEL, cancelled)
    slow.set()
    await pass_time(stage, 600)
    assert came == [("z", 1), ("hub", 1), ("hub", 3)]
    assert stage.sessions()[last] == "succeeded"
    assert await keeps_count(stage, "one") == 0


# --- paused ---------------------------------------------------------------------------------------------------------


async def test_what_is_paused_before_it_is_stored_goes_on_after_the_resume(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    session = await begin(control, "one", source="kind=alias", data=None)
    await stage.settle()
    await say(stage, control, Verb.PAUSE, session)
    await stage.alias("x")
    while await stage.engine.plan():
        pass
    await control.tell_session(session, Verb.RESUME, actor=OPERATOR)
    while await stage.engine.plan():
        pass
    await pass_time(stage, 600)
    assert stage.targets.names("one") == ["x"]
    assert await stage.lanes.deliveries() == []


async def test_a_word_that_comes_while_the_store_takes_a_row_is_not_overwritten_by_it(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    session = await begin(control, "one", source="kind=alias", data=None)
    await stage.settle()
    await say(stage, control, Verb.PAUSE, session)
    await stage.alias("x")
    while await stage.engine.plan():
        pass
    real, begun, go_on = stage.lanes.apply, asyncio.Event(), asyncio.Event()

    async def apply(settlements: Any) -> None:
        begun.set()
        await go_on.wait()
        await real(settlements)

    stage.lanes.apply = apply
    storing = asyncio.get_running_loop().create_task(stage.engine.settle())
    await begun.wait()
    await control.tell_session(session, Verb.RESUME, actor=OPERATOR)
    while await stage.engine.plan():
        pass
    go_on.set()
    await storing
    stage.lanes.apply = real
    await pass_time(stage, 600)
    assert stage.targets.names("one") == ["x"]


async def paused_for_a_while(stage: Stage, control: PropagationControl, count: int) -> str:
    """A standing session with rows that are all due at once when its target goes on."""
    await stage.target("one")
    session = await begin(control, "one", source="kind=alias", data=None)
    await stage.settle()
    await tell(stage, control, "one", Action.PAUSE)
    await stage.aliases(count)
    await stage.settle()
    return session


async def test_a_pause_reaches_rows_that_are_claimed_and_not_begun(stage: Stage, control: PropagationControl) -> None:
    session = await paused_for_a_while(stage, control, 30)
    stage.targets.gates["one"] = asyncio.Event()
    await tell(stage, control, "one", Action.RESUME)
    under_way = stage.targets.attempts
    assert 0 < under_way < 5
    await say(stage, control, Verb.PAUSE, session)
    stage.targets.gates["one"].set()
    await pass_time(stage, 60)
    assert stage.targets.attempts == under_way
    kept = await stage.lanes.deliveries()
    assert {row.keep for row in kept} == {Keep.PAUSED}
    assert await keeps_count(stage, "one") == 30 - under_way
    await say(stage, control, Verb.RESUME, session)
    await pass_time(stage, 60)
    assert sorted(stage.targets.names("one")) == [f"a{number:03}" for number in range(30)]


async def test_a_pause_reaches_rows_whose_claim_is_being_stored(stage: Stage, control: PropagationControl) -> None:
    session = await paused_for_a_while(stage, control, 30)
    await control.tell_target("system", "one", Action.RESUME, actor=OPERATOR)
    stage.engine.look()
    while await stage.engine.plan():
        pass
    assert any(run.claiming for run in stage.engine._runs.values())
    await say(stage, control, Verb.PAUSE, session)
    await pass_time(stage, 60)
    assert stage.targets.attempts == 0
    assert await keeps_count(stage, "one") == 30


async def test_a_long_session_is_paused_page_by_page_and_goes_on_whole(
    stage: Stage, control: PropagationControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "_PAGE", 4)
    session = await paused_for_a_while(stage, control, 30)
    other = await begin(control, "one")
    await say(stage, control, Verb.PAUSE, session)
    kept = await stage.lanes.deliveries(session_id=session)
    assert (len(kept), {row.keep for row in kept}) == (30, {Keep.PAUSED})
    await tell(stage, control, "one", Action.RESUME)
    await pass_time(stage, 60)
    assert stage.targets.names("one") == ["hub"], f"only {other} goes on"
    await say(stage, control, Verb.RESUME, session)
    await pass_time(stage, 60)
    assert len(stage.targets.names("one")) == 31


# --- words and the end of a daemon ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.CANCEL])
async def test_a_word_that_was_not_done_when_the_daemon_ended_is_done_by_the_next(
    stage: Stage, control: PropagationControl, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "_PAGE", 4)
    session = await paused_for_a_while(stage, control, 30)
    await control.tell_session(session, verb, actor=OPERATOR)
    await stage.start()
    await stage.settle()
    rows = await stage.lanes.deliveries(session_id=session)
    expected = (Keep.PAUSED, DeliveryState.PENDING) if verb is Verb.PAUSE else (Keep.NONE, DeliveryState.CANCELLED)
    assert (len(rows), {(row.keep, row.state) for row in rows}) == (30, {expected})
    await keeps_count(stage, "one")


async def test_a_resume_while_no_daemon_runs_lets_stored_rows_go(stage: Stage, control: PropagationControl) -> None:
    session = await paused_for_a_while(stage, control, 30)
    await say(stage, control, Verb.PAUSE, session)
    await tell(stage, control, "one", Action.RESUME)
    await control.tell_session(session, Verb.RESUME, actor=OPERATOR)
    await stage.start()
    await pass_time(stage, 60)
    assert len(stage.targets.names("one")) == 30


async def test_what_is_past_its_deadline_is_not_sent_again_by_the_next_daemon(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    await stage.settle()
    stage.targets.gates["one"] = asyncio.Event()
    begun = await begin(control, "one", deadline=20.0)
    await begin(control, "one", source="another")
    await stage.event("a-third", 1, "one")
    await stage.settle()
    await stage.wait(30)
    await stage.wait(2)
    attempts = stage.targets.attempts
    del stage.targets.gates["one"]
    await stage.start()
    await pass_time(stage, 60)
    assert "hub" not in stage.targets.names("one")
    assert attempts > 0
    assert stage.sessions()[begun] == "expired"


# --- words and storage that does not answer --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.CANCEL])
@pytest.mark.parametrize("seconds", [0, 1.5, 100])
async def test_a_word_counts_a_row_once_whether_it_is_due_or_not(
    stage: Stage, control: PropagationControl, verb: Verb, seconds: float
) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    sessions = [await begin(control, "one", data=number) for number in range(4)]
    await stage.settle()
    assert await keeps_count(stage, "one") == 4
    stage.world.moment += timedelta(seconds=seconds)
    await say(stage, control, verb, *sessions[:2])
    await pass_time(stage, 10)
    assert await keeps_count(stage, "one") == (2 if verb is Verb.CANCEL else 4)


async def test_a_row_that_is_stored_while_due_ones_are_read_is_not_taken_for_what_it_was(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    sessions = [await begin(control, "one", data=number) for number in range(4)]
    await stage.settle()
    stage.world.moment += timedelta(seconds=100)
    real = stage.lanes.due

    async def due(*args: Any, **more: Any) -> Any:
        found = await real(*args, **more)
        await stage.engine.settle()
        return found

    stage.lanes.due = due
    await say(stage, control, Verb.CANCEL, *sessions)
    stage.lanes.due = real
    await pass_time(stage, 10)
    assert await keeps_count(stage, "one") == 0
    assert {row.state for row in await stage.lanes.deliveries()} == {DeliveryState.CANCELLED}


@pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.CANCEL])
@pytest.mark.parametrize("step", ["undone", "apply"])
async def test_a_word_is_done_when_the_store_answers_again(
    stage: Stage, control: PropagationControl, verb: Verb, step: str
) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    event = await begin(control, "one")
    await stage.settle()
    left = failing(stage.lanes, step, times=2)
    await control.tell_session(event, verb, actor=OPERATOR)
    await pass_time(stage, 10)
    assert left == [0]
    assert stage.sessions()[event] == ("paused" if verb is Verb.PAUSE else "cancelled")
    assert await keeps_count(stage, "one") == (verb is Verb.PAUSE)


async def test_a_session_expires_though_the_store_did_not_answer_at_its_deadline(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    await stage.target("two")
    stage.targets.down = {"two"}
    session = await begin(control, "one", "two", deadline=20.0)
    await stage.settle()
    await say(stage, control, Verb.PAUSE, session)
    left = failing(stage.lanes, "undone")
    await pass_time(stage, 60)
    found = await control.session(session)
    assert (left, found["state"]) == ([0], "expired")
    assert {each["target"]: each["state"] for each in found["targets"]} == {
        "system/one": "delivered",
        "system/two": "cancelled",
    }


async def test_a_lane_goes_on_though_the_store_did_not_answer_when_its_rows_were_due(
    stage: Stage, control: PropagationControl
) -> None:
    await paused_for_a_while(stage, control, 1)
    left = failing(stage.lanes, "due")
    await control.tell_target("system", "one", Action.RESUME, actor=OPERATOR)
    stage.engine.look()
    await pass_time(stage, 10)
    assert (left, stage.targets.names("one")) == ([0], ["a000"])


@pytest.mark.parametrize("step", ["line", "missed_event"])
async def test_a_store_that_does_not_answer_is_not_held_against_the_target(
    stage: Stage, control: PropagationControl, step: str
) -> None:
    await stage.target("one")
    await stage.settle()
    stage.targets.answers["one"] = [Rejected(reason="no", status=400, milliseconds=1.0)]
    await stage.event("hub", 1, "one")  # is given up: those after it look for gaps
    await stage.settle()
    await tell(stage, control, "one", Action.PAUSE)
    await stage.event("hub", 2, "one")
    await stage.settle()
    before = await stage.lane("one")
    left = failing(stage.registry if step == "line" else stage.lanes, step, times=3)
    await tell(stage, control, "one", Action.RESUME)
    await pass_time(stage, 20)
    after = await stage.lane("one")
    assert left == [0]
    assert (after.failures, after.last_error, after.delivered) == (0, before.last_error, 1)
    assert stage.targets.attempts == 2
    assert [each["data"] for each in stage.targets.got["one"]] == [2]
    assert await keeps_count(stage, "one") == 0


async def test_two_words_to_revive_a_delivery_revive_it_once(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.route("r", "one")
    stage.targets.answers["one"] = [Rejected(reason="no", status=400, milliseconds=1.0)]
    await stage.alias("x")
    await stage.settle()
    [dead] = await stage.lanes.deliveries(states=[DeliveryState.DEAD])
    for _ in range(2):
        await control.tell_delivery(dead.delivery_id, Action.REDRIVE, actor=OPERATOR)
    stage.engine.look()
    await pass_time(stage, 30)
    assert stage.targets.names("one") == ["x"]
    assert await keeps_count(stage, "one") == 0
    assert await stage.lanes.commands() == []
