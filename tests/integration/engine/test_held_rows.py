"""What is said of a delivery whose target is held back is the same wherever it is asked, and true now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from universal_registry.kernel.ids import Key
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lanes.lane import Breaker
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.registry.service import Actor

Stage = Any  # the class of the fixture, which pytest alone can import
OPERATOR = Actor("uid:1000", admin=True)
X = Key("alias", "default", "x")


def control_of(stage: Stage) -> PropagationControl:
    return PropagationControl(
        stage.service, stage.lanes, {"webhook": stage.targets}, stage.engine, stage.world, stage.settings
    )


async def said(stage: Stage, control: PropagationControl) -> set[tuple[str, str | None]]:
    """Reason and next try of the one delivery, by all that show them; the reason by status too."""
    ((found,),) = [each["targets"] for each in await control.where("alias/x")]
    (listed,) = await control.deliveries(key=X)
    explained = await control.why(listed["delivery"])
    (target,) = (await control.status())["targets"]
    assert target["reason"] in ("", found["reason"])
    assert (target["lane"]["open_until"] or "") <= (listed["next_at"] or "")
    return {(each["reason"], each["next_at"]) for each in (found, listed, explained)}


async def test_with_an_open_breaker_nothing_is_due_in_the_past(stage: Stage) -> None:
    control = control_of(stage)
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    stage.targets.down = {"one"}
    await stage.alias("x")
    opened = 0
    for _ in range(400):
        await stage.wait(7)
        lane = await stage.lane("one")
        if lane.breaker is not Breaker.OPEN or lane.open_until <= stage.world.now():
            continue
        opened += 1
        ((reason, next_at),) = await said(stage, control)
        assert reason.startswith(f"breaker open until {lane.open_until:%Y-%m-%dT%H:%M:%SZ}")
        assert datetime.fromisoformat(str(next_at)) >= lane.open_until
    assert opened > 50


async def test_a_row_that_was_kept_back_once_does_not_say_so_for_ever(stage: Stage) -> None:
    control = control_of(stage)
    await stage.target("one")
    await stage.route("r", "one")
    await stage.settle()
    await control.tell_target("system", "one", Action.PAUSE, actor=OPERATOR)
    stage.engine.look()
    await stage.settle()
    await stage.alias("x")
    await stage.settle()
    assert await said(stage, control) == {("paused", None)}
    await control.tell_target("system", "one", Action.RESUME, actor=OPERATOR)
    assert await said(stage, control) == {("waits for its target", None)}
    stage.engine.look()
    await stage.settle()
    assert stage.targets.names("one") == ["x"]
