"""The budget of retries: who runs out of it, who does not, and what people are told while a target has none left."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lanes.lane import DeliveryState
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.views.plain import moment_text
from universal_registry.registry.service import Actor

OPERATOR = Actor("uid:1000", admin=True)
Stage = Any  # the class of the fixture, which pytest alone can import
# No breaker, and each retry after a second: what waits longer waits for the budget.
RETRY = RetrySettings(jitter_enabled=False, circuit_breaker_enabled=False, max_retries=1000, max_delay_seconds=1.0)


def control_of(stage: Stage) -> PropagationControl:
    transports = {"webhook": stage.targets}
    return PropagationControl(stage.service, stage.lanes, transports, stage.engine, stage.world, stage.settings)


def flaky(share: float, count: int) -> list[Outcome]:
    chance = random.Random(7)
    failed, taken = Failed(reason="no", status=503, milliseconds=1.0), Accepted(status=200, milliseconds=1.0)
    return [failed if chance.random() < share else taken for _ in range(count)]


async def spent(stage: Stage) -> None:
    """A target that has used up its budget and answers nothing; twenty deliveries have failed at least once."""
    await stage.start(retry=RETRY)
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.down.add("one")
    await stage.aliases(20)
    await stage.settle()
    await stage.wait(1.5)


@pytest.mark.parametrize(("share", "longest"), [(0.3, 20), (0.4, 30)])
async def test_a_target_that_takes_most_of_what_it_is_sent_is_not_throttled(
    stage: Stage, share: float, longest: int
) -> None:
    """By the waits of the retries alone: the one that fails most often fails a dozen times."""
    await stage.start(retry=RETRY)
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = flaky(share, 4000)
    await stage.aliases(500, "a")
    began = stage.world.moment
    await stage.until(lambda: len(stage.targets.names("one")) == 500, steps=longest)
    assert stage.world.moment - began <= timedelta(seconds=longest)
    assert stage.targets.attempts < 500 * 2, "at most twice the requests"


async def test_a_target_that_fails_most_retries_gets_few(stage: Stage) -> None:
    await stage.start(retry=RETRY)
    await stage.target("one")
    await stage.route("all", "one")
    stage.targets.answers["one"] = flaky(0.8, 4000)
    await stage.aliases(200, "a")
    await stage.settle()
    before = stage.targets.attempts
    for _ in range(100):
        await stage.wait(1)
    # Of each four that fail one succeeds: 10 at first, 10 by the time, and 4 of each 5 that are left cost one each.
    assert stage.targets.attempts - before <= 60


async def test_nothing_is_said_to_be_under_way_when_the_budget_is_used_up(stage: Stage) -> None:
    await spent(stage)
    rows = await stage.lanes.deliveries()
    assert len(rows) == 20
    assert {row.state for row in rows} == {DeliveryState.WAITING}
    before = stage.targets.attempts
    await stage.wait(1)
    assert stage.targets.attempts == before


async def test_who_asks_is_told_that_the_budget_is_used_up_and_when_one_is_tried(stage: Stage) -> None:
    await spent(stage)
    control = control_of(stage)
    target = await control.target("system", "one")
    budget = target["lane"]["retry_budget"]
    assert (budget["left"] < 1, budget["most"], target["state"]) == (True, 10.0, "ready")
    assert budget["next_at"] is not None
    assert budget["next_at"] > moment_text(stage.world.moment)
    assert target["reason"].startswith(
        "retry budget used up: of what has failed before one is tried at 2026-03-01T12:00"
    )
    assert "retry.budget_refill_seconds 10" in target["reason"]
    assert any("target one: retry budget used up" in each and "20 waiting" in each for each in await warnings(control))

    rows = await control.deliveries()
    assert {row["next_at"] for row in rows} == {budget["next_at"]}
    assert all(row["reason"].startswith("no; ") or "refused; retry budget used up" in row["reason"] for row in rows)
    why = await control.why(rows[0]["delivery"])
    assert [each for each in why["why"] if each.startswith("the target: retry budget used up")]
    assert why["retry_budget"] == budget
    where = await control.where("alias/a000")
    (there,) = [each for each in where[0]["targets"] if each["target"] == "system/one"]
    assert "retry budget used up" in there["reason"]
    assert there["next_at"] == budget["next_at"]
    (session,) = await control.sessions()
    assert "retry budget used up" in session["targets"][0]["reason"]

    tried = stage.targets.attempts
    await stage.until(lambda: stage.targets.attempts > tried, steps=12)
    assert moment_text(stage.world.moment) >= budget["next_at"]


async def test_what_was_never_tried_goes_out_although_the_budget_is_used_up(stage: Stage) -> None:
    await spent(stage)
    stage.targets.down.clear()
    await stage.alias("new")
    await stage.settle()
    assert stage.targets.names("one") == ["new"]


async def test_when_the_budget_is_back_nothing_is_said_of_it(stage: Stage) -> None:
    await spent(stage)
    stage.targets.down.clear()
    await stage.until(lambda: len(stage.targets.names("one")) == 20, steps=30)
    target = await control_of(stage).target("system", "one")
    assert (target["reason"], target["lane"]["retry_budget"]["next_at"]) == ("", None)


async def test_what_was_claimed_is_given_back_when_the_breaker_opens(stage: Stage) -> None:
    await stage.target("one", in_flight=1)
    await stage.route("all", "one")
    failed, taken = flaky(1.0, 5), flaky(0.0, 3)
    stage.targets.answers["one"] = [*failed, *taken, *failed, *taken]
    await stage.aliases(30)
    await stage.settle()
    await stage.wait(61)  # the probe is taken, and so are two more: rows are claimed for what follows
    assert len(stage.targets.names("one")) == 3
    assert (await stage.lane("one")).breaker.value == "open"
    assert {row.state for row in await stage.lanes.deliveries()} == {DeliveryState.PENDING, DeliveryState.WAITING}
    await stage.until(lambda: len(stage.targets.names("one")) == 30, steps=200)


async def warnings(control: PropagationControl) -> list[str]:
    return list((await control.status())["warnings"])


async def test_what_was_never_tried_does_not_wait_for_the_budget(stage: Stage) -> None:
    """Nor behind the rows that do: of those there are more than are looked at in one go."""
    await spent(stage)
    control = control_of(stage)
    await control.tell_target("system", "one", Action.PAUSE, actor=OPERATOR)
    await stage.settle()
    await stage.aliases(30, "b")
    await stage.settle()
    await control.tell_target("system", "one", Action.RESUME, actor=OPERATOR)
    before = stage.targets.attempts
    await stage.settle()
    assert stage.targets.attempts - before >= 30
    assert min(row.attempts for row in await stage.lanes.deliveries()) >= 1
