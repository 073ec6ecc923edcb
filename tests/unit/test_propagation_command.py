"""What people tell lanes, and when the engine itself disables a target."""

from __future__ import annotations

from dataclasses import replace as with_settings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes import breaker
from universal_registry.propagation.lanes.auto_disable import judged, notice
from universal_registry.propagation.lanes.lane import (
    Breaker,
    Delivery,
    DeliveryState,
    Guard,
    Hold,
    Lane,
    Order,
    Position,
)
from universal_registry.propagation.lanes.lane_command import Action, Command, after_target_change, obeyed, row_obeyed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RETRY = RetrySettings()


def lane(**changes: Any) -> Lane:
    plain = Lane(
        lane_id="t1",
        target_uid="t1",
        target_namespace="system",
        target_name="mine",
        transport="webhook",
        incarnation="0123456789ab",
        position=Position(7, 0),
    )
    return replace(plain, **changes)


def told(before: Lane, action: Action, **more: Any) -> Lane:
    return obeyed(before, Command(lane_id="t1", action=action, actor="ann", at=NOW, **more), NOW)


def dead(op: str = "put") -> Delivery:
    return Delivery(
        delivery_id="dlv_1",
        lane_id="t1",
        session_id="s",
        route_uid="r",
        op=op,
        kind="alias",
        namespace="default",
        name="gs",
        revision=8,
        seq=0,
        state=DeliveryState.DEAD,
        attempts=14,
        reason="given up",
        created_at=NOW - 9 * DAY,
        updated_at=NOW,
    )


def test_a_pause_ends_only_by_a_resume() -> None:
    paused = told(lane(), Action.PAUSE)
    assert breaker.may_send(paused, NOW) == "paused"
    assert paused.guard.by == "ann"
    assert told(told(paused, Action.RESET), Action.DISABLE).paused
    assert told(paused, Action.RESUME) == lane()


def test_a_resume_also_ends_what_the_target_asked_for_and_a_refusal() -> None:
    asked = lane(pause_until=NOW + DAY)
    assert told(asked, Action.RESUME).pause_until is None
    refused = breaker.refused(lane(), NOW, probe=False)
    back = told(refused, Action.RESUME)
    assert (back.breaker, back.guard.hold) == (Breaker.CLOSED, Hold.NONE)


def test_what_is_disabled_says_by_whom_and_why_until_it_is_enabled() -> None:
    off = told(lane(), Action.DISABLE, reason="moved")
    assert breaker.may_send(off, NOW) == "disabled by ann: moved; ureg target enable mine"
    assert told(told(off, Action.RESUME), Action.RESET).held == off.held
    on = told(replace(off, guard=replace(off.guard, failing_since=NOW, lost=30, noticed_at=NOW)), Action.ENABLE)
    assert (on.held, on.guard) == ("", Guard())


def test_enabling_ends_a_410_a_pause_and_an_open_breaker_but_not_the_wait_of_strict_order() -> None:
    gone = lane(held="gone", guard=Guard(hold=Hold.GONE), paused=True, breaker=Breaker.OPEN, open_until=NOW + DAY)
    on = told(gone, Action.ENABLE)
    assert (on.held, on.paused, on.breaker, on.guard.hold) == ("", False, Breaker.CLOSED, Hold.NONE)
    waits = lane(held="order", guard=Guard(hold=Hold.ORDER, dead="dlv_1"))
    assert told(waits, Action.ENABLE).held == "order"


def test_the_breaker_is_opened_until_the_time_given() -> None:
    opened = told(lane(), Action.OPEN, until=NOW + timedelta(hours=2))
    assert (opened.breaker, opened.open_until) == (Breaker.OPEN, NOW + timedelta(hours=2))
    assert told(opened, Action.RESET).breaker is Breaker.CLOSED


def test_only_the_delivery_that_strict_order_waits_for_lets_it_go_on() -> None:
    waits = lane(held="order", guard=Guard(hold=Hold.ORDER, dead="dlv_1"), order=Order.STRICT)
    for action in (Action.REDRIVE, Action.SKIP):
        assert told(waits, action, delivery_id="dlv_2") == waits
        assert told(waits, action, delivery_id="dlv_1") == lane(order=Order.STRICT)


def command(action: Action) -> Command:
    return Command(lane_id="t1", action=action, actor="ann", at=NOW, delivery_id="dlv_1")


def test_a_redrive_begins_anew_and_is_young_again() -> None:
    again = row_obeyed(dead(), command(Action.REDRIVE), NOW)
    assert again is not None
    assert (again.state, again.attempts, again.created_at) == (DeliveryState.PENDING, 0, NOW)
    assert again.reason == "sent again by ann"


def test_state_that_was_overtaken_is_not_sent_again_but_an_event_is() -> None:
    assert row_obeyed(dead(), command(Action.REDRIVE), NOW, newer=9) is None
    event = row_obeyed(dead("event"), command(Action.REDRIVE), NOW, newer=9)
    assert event is not None
    assert event.state is DeliveryState.PENDING


def test_a_skip_leaves_a_trace() -> None:
    skipped = row_obeyed(dead(), command(Action.SKIP), NOW)
    assert skipped is not None
    assert (skipped.state, skipped.reason) == (DeliveryState.CANCELLED, "skipped by ann: given up")


@pytest.mark.parametrize("state", [each for each in DeliveryState if each is not DeliveryState.DEAD])
def test_what_is_not_dead_is_left_alone(state: DeliveryState) -> None:
    row = replace(dead(), state=state)
    assert row_obeyed(row, command(Action.REDRIVE), NOW) == row
    assert row_obeyed(row, command(Action.SKIP), NOW) == row


def test_a_changed_target_is_tried_again_but_stays_disabled_or_paused() -> None:
    gone = lane(held="gone", guard=Guard(hold=Hold.GONE))
    assert after_target_change(gone, Order.PER_KEY) == lane()
    refused = after_target_change(breaker.refused(lane(), NOW, probe=False), Order.PER_KEY)
    assert refused.breaker is Breaker.CLOSED
    off = told(told(lane(), Action.DISABLE), Action.PAUSE)
    assert after_target_change(off, Order.PER_KEY) == off


def test_a_target_at_a_new_address_is_tried_at_once_unless_somebody_opened_its_breaker() -> None:
    resting = lane(breaker=Breaker.OPEN, failures=5, trips=3, open_until=NOW + DAY)
    assert after_target_change(resting, Order.PER_KEY) == resting
    assert after_target_change(resting, Order.PER_KEY, moved=True).breaker is Breaker.CLOSED
    opened = breaker.force_open(lane(), NOW + DAY, "ann")
    assert after_target_change(opened, Order.PER_KEY, moved=True) == opened


def test_a_target_that_is_no_longer_strict_waits_no_longer() -> None:
    waits = lane(held="order", guard=Guard(hold=Hold.ORDER, dead="dlv_1"), order=Order.STRICT)
    assert after_target_change(waits, Order.STRICT) == waits
    assert after_target_change(waits, Order.PER_KEY).held == ""


# --- disabled by policy ---------------------------------------------------------------------------------------------


def failing(days: float, lost: int, **guard: Any) -> Lane:
    return lane(last_error="down", guard=Guard(failing_since=NOW - days * DAY, lost=lost, **guard))


def test_first_comes_a_notice_and_a_day_later_the_end() -> None:
    assert judged(failing(9, 100), NOW, RETRY).held == "", "never without a notice"
    noticed = judged(failing(9, 100), NOW, RETRY)
    assert noticed.guard.noticed_at == NOW
    assert notice(noticed) == ("failing since 2026-02-20, 100 given up: it will be disabled unless something succeeds")
    assert judged(noticed, NOW + DAY - timedelta(seconds=1), RETRY) == noticed
    ended = judged(noticed, NOW + DAY, RETRY)
    assert ended.guard.hold is Hold.DISABLED
    assert ended.held == "disabled: 10.0 days without a success, 100 given up (down); ureg target enable mine"
    assert notice(ended) == ""


@pytest.mark.parametrize(("days", "lost"), [(2.4, 100), (9, 9), (0, 0)])
def test_both_half_the_time_and_half_the_dead_make_a_notice(days: float, lost: int) -> None:
    before = failing(days, lost)
    assert judged(before, NOW, RETRY) == before
    assert judged(failing(2.5, 10), NOW, RETRY).guard.noticed_at == NOW


@pytest.mark.parametrize(("days", "lost"), [(4.9, 100), (30, 19)])
def test_both_the_time_and_the_dead_must_be_reached(days: float, lost: int) -> None:
    noticed = failing(days, lost, noticed_at=NOW - 2 * DAY)
    assert judged(noticed, NOW, RETRY) == noticed


def test_the_policy_can_be_switched_off() -> None:
    off = with_settings(RETRY, auto_disable_days=0.0)
    before = failing(100, 1000, noticed_at=NOW - 2 * DAY)
    assert judged(before, NOW, off) == before
