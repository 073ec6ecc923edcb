"""What people tell a lane: pause, resume, disable, enable, reset or open its breaker, redrive or skip a dead delivery.

A command is stored, and done by whoever owns the lane, in one commit with what follows from it. Pure.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import assert_never

import msgspec
from msgspec.structs import replace

from universal_registry.propagation.lanes import breaker
from universal_registry.propagation.lanes.lane import Delivery, DeliveryState, Guard, Hold, Lane, Order
from universal_registry.registry.words import shell_word


class Action(StrEnum):
    """What may be told. The value is the action of the audit trail."""

    PAUSE = "target.pause"
    RESUME = "target.resume"
    DISABLE = "target.disable"
    ENABLE = "target.enable"
    RESET = "breaker.reset"
    OPEN = "breaker.open"
    REDRIVE = "delivery.redrive"
    SKIP = "delivery.skip"


ON_DELIVERIES = (Action.REDRIVE, Action.SKIP)
AT_ONCE = (Action.RESUME, Action.ENABLE, Action.RESET)
"""After these nothing waits any longer for a retry, nor because its target asked for it."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One word to a lane. `number` is the store's. `until`: for OPEN. `delivery_id`: for REDRIVE and SKIP."""

    number: int = 0
    lane_id: str
    action: Action
    actor: str
    at: datetime
    until: datetime | None = None
    delivery_id: str = ""
    reason: str = ""


def obeyed(lane: Lane, command: Command, now: datetime) -> Lane:
    """The lane once it has done what it was told. Of a redrive or a skip: once `row_obeyed` has found the row dead."""
    match command.action:
        case Action.PAUSE:
            return replace(lane, paused=True, guard=replace(lane.guard, by=command.actor))
        case Action.RESUME:
            return _resumed(lane)
        case Action.DISABLE:
            return _disabled(lane, command)
        case Action.ENABLE:
            return _enabled(lane)
        case Action.RESET:
            return replace(breaker.reset(lane), pause_until=None)
        case Action.OPEN:
            return breaker.force_open(lane, command.until or now + breaker.LONGEST_OPEN, command.actor)
        case Action.REDRIVE | Action.SKIP:
            return _unblocked(lane, command.delivery_id)
        case _:
            assert_never(command.action)


def row_obeyed(row: Delivery, command: Command, now: datetime, newer: int = 0) -> Delivery | None:
    """A dead row once it has been told; None: it goes. Any other row stays as it is.

    `newer`: a later revision of the same record that the lane has passed. State that has been overtaken is not sent
    again: the current one is there, or on its way.
    """
    if row.state is not DeliveryState.DEAD:
        return row
    if command.action is Action.SKIP:
        reason = f"skipped by {command.actor}: {row.reason}"
        return replace(row, state=DeliveryState.CANCELLED, reason=reason, updated_at=now)
    if newer and row.op != "event":
        return None
    again = replace(row, state=DeliveryState.PENDING, attempts=0, crashes=0, next_at=None)
    return replace(again, reason=f"sent again by {command.actor}", created_at=now, updated_at=now)


def hastened(row: Delivery, now: datetime) -> Delivery:
    """A row that waits for a later moment, due now; any other as it is."""
    if row.state is not DeliveryState.WAITING or row.next_at is None or row.next_at <= now:
        return row
    return replace(row, next_at=now)


def after_target_change(lane: Lane, order: Order, *, moved: bool = False) -> Lane:
    """The lane when somebody has changed its target, which now wants this order: what its old address or key did no
    longer counts, and what strict order waited for may pass where it is strict no more. `moved`: to another address."""
    hold = lane.guard.hold
    if hold is Hold.GONE or (hold is Hold.ORDER and order is not Order.STRICT):
        return replace(lane, held="", guard=replace(lane.guard, hold=Hold.NONE, dead=""))
    return breaker.reset(lane) if hold is Hold.REFUSED or (moved and not lane.guard.opened_by) else lane


def _resumed(lane: Lane) -> Lane:
    if lane.guard.hold is Hold.REFUSED:
        lane = breaker.reset(lane)
    return replace(lane, paused=False, pause_until=None, guard=replace(lane.guard, by=""))


def _disabled(lane: Lane, command: Command) -> Lane:
    why = f": {command.reason}" if command.reason else ""
    held = f"disabled by {command.actor}{why}; ureg target enable {shell_word(lane.target_name)}"
    return replace(lane, held=held, guard=replace(lane.guard, hold=Hold.DISABLED, by=command.actor))


def _enabled(lane: Lane) -> Lane:
    """Also a pause ends, the breaker closes, and the count of what speaks for disabling begins anew."""
    guard: Guard = lane.guard
    if guard.hold is not Hold.ORDER:
        lane = replace(lane, held="", guard=replace(guard, hold=Hold.NONE))
    lane = breaker.reset(_resumed(lane))
    return replace(lane, guard=replace(lane.guard, failing_since=None, lost=0, noticed_at=None))


def _unblocked(lane: Lane, delivery_id: str) -> Lane:
    if lane.guard.hold is not Hold.ORDER or lane.guard.dead != delivery_id:
        return lane
    return replace(lane, held="", guard=replace(lane.guard, hold=Hold.NONE, dead=""))
