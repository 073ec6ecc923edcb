"""What follows from the outcome of one attempt: for the lane, for the delivery, for the totals. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

import msgspec
from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes import breaker
from universal_registry.propagation.lanes import retry_budget as budget
from universal_registry.propagation.lanes.auto_disable import judged
from universal_registry.propagation.lanes.backoff import next_wait, too_old
from universal_registry.propagation.lanes.lane import (
    Arrival,
    Attempt,
    Breaker,
    Counters,
    Delivery,
    DeliveryState,
    Hold,
    Lane,
    Order,
)
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.registry.words import shell_word

LONGEST_PAUSE = timedelta(hours=24)
"""No `Retry-After` is obeyed for longer."""
GONE = 410
REFUSALS = frozenset((401, 403, 404))
"""Answers that say nothing of one delivery and everything of the target: a key, a right or an address is wrong."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """`delivery` None: delivered, its row (if any) goes. Otherwise its row as it must be stored now. `attempt`: the
    record of an attempt that did not succeed. `counters`: what to add to the totals."""

    lane: Lane
    delivery: Delivery | None
    attempt: Attempt | None
    counters: Counters


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for deliveries to one target. `in_flight`: how many may be under way. `retry_rejected`: what the
    target rejects is tried again like anything else."""

    retry: RetrySettings
    in_flight: int = 2
    retry_rejected: bool = False


def settle(
    lane: Lane, delivery: Delivery, outcome: Outcome, terms: Terms, *, now: datetime, chance: float, probe: bool = True
) -> Settled:
    """The result of an attempt. `delivery.attempts`: how many ended before this one, which is so the number of it.

    `chance` in [0, 1) for the jitter. `probe` False: the attempt began before the breaker opened and decides nothing
    about it. The counts `rows` and `dead` of the lane are the store's to keep.
    """
    match outcome:
        case Accepted():
            return _accepted(lane, delivery, terms, now, probe)
        case Rejected():
            return _rejected(lane, delivery, outcome, terms, now, chance, probe)
        case Failed():
            lane = _failing(lane, outcome, now)
            if outcome.status == GONE:
                return _gone(lane, delivery, outcome, now, probe)
            if outcome.setup or outcome.status in REFUSALS:
                return _refused(lane, delivery, outcome, now, probe)
            lane = _paused(breaker.failed(lane, now, terms.retry, probe=probe), outcome, now)
            settled = _failed(lane, delivery, outcome, terms.retry, now, chance)
            return replace(settled, lane=judged(settled.lane, now, terms.retry))
        case _:
            assert_never(outcome)


def arrival(lane: Lane, delivery: Delivery, outcome: Outcome, now: datetime) -> Arrival | None:
    """What is kept of a delivery that has arrived; of standing sessions that is nothing: lanes say how far they are."""
    if delivery.session_id == delivery.route_uid:
        return None
    return Arrival(
        session_id=delivery.session_id,
        target_namespace=lane.target_namespace,
        target_name=lane.target_name,
        delivery_id=delivery.delivery_id,
        began_at=now - timedelta(milliseconds=outcome.milliseconds),
        arrived_at=now,
    )


def news(before: Lane, settled: Settled) -> list[tuple[str, dict[str, object]]]:
    """What somebody may have to look at: event names with their fields, for the log."""
    after, row = settled.lane, settled.delivery
    found: list[tuple[str, dict[str, object]]] = []
    if after.guard.hold is Hold.REFUSED and before.guard.hold is not Hold.REFUSED:
        found.append(("target refuses", {"reason": after.last_error}))
    elif before.breaker is Breaker.CLOSED and after.breaker is Breaker.OPEN:
        found.append(("breaker opened", {"reason": after.last_error, "failures": after.failures}))
    if before.breaker is not Breaker.CLOSED and after.breaker is Breaker.CLOSED:
        found.append(("breaker closed", {}))
    if after.guard.noticed_at is not None and before.guard.noticed_at is None:
        found.append(("target will be disabled", {"reason": after.last_error, "given_up": after.guard.lost}))
    if after.held and after.held != before.held:
        found.append(("target held", {"reason": after.held}))
    if row is not None and row.state is DeliveryState.DEAD:
        found.append(("delivery given up", {"delivery": row.delivery_id, "reason": row.reason}))
    return found


# --- taken ----------------------------------------------------------------------------------------------------------


def _accepted(lane: Lane, delivery: Delivery, terms: Terms, now: datetime, probe: bool) -> Settled:
    lane = breaker.succeeded(lane, probe=probe, most=terms.in_flight)
    guard = budget.rewarded(lane.guard, terms.retry, now, retried=delivery.attempts > 0)
    if guard.failing_since is not None:
        guard = replace(guard, failing_since=None, lost=0, noticed_at=None)
    lane = replace(lane, delivered=lane.delivered + 1, last_success_at=now, last_error="", guard=guard)
    delivered = 1 if lane.transport == "webhook" else 0
    return Settled(lane=lane, delivery=None, attempt=None, counters=Counters(executed=1, delivered=delivered))


# --- not taken ------------------------------------------------------------------------------------------------------


def _rejected(
    lane: Lane, delivery: Delivery, outcome: Rejected, terms: Terms, now: datetime, chance: float, probe: bool
) -> Settled:
    """The payload's fault: no word about the target's health. Dead at once, unless the target wants it again."""
    if probe:
        lane = breaker.probe_undecided(lane, now)
    attempt = _attempt(delivery, "rejected", outcome, now)
    wait = next_wait(delivery.attempts, terms.retry, chance) if terms.retry_rejected else None
    if wait is None or too_old(delivery.attempts, delivery.created_at, now, terms.retry):
        return _dead(lane, delivery, attempt, now, f"rejected: {outcome.reason}")
    return _row(lane, delivery, attempt, now, DeliveryState.WAITING, f"rejected: {outcome.reason}", now + wait)


def _failing(lane: Lane, outcome: Failed, now: datetime) -> Lane:
    guard = lane.guard if lane.guard.failing_since is not None else replace(lane.guard, failing_since=now)
    return replace(lane, last_failure_at=now, last_error=outcome.reason, guard=guard)


def _gone(lane: Lane, delivery: Delivery, outcome: Failed, now: datetime, probe: bool) -> Settled:
    """The target says that it is no more: it is disabled until somebody looks, and all that is meant for it is held."""
    if probe:
        lane = breaker.probe_undecided(lane, now)
    name = shell_word(lane.target_name)
    back = f"ureg target add {name} URL, or: ureg target enable {name}"
    reason = f"gone ({GONE}): {outcome.reason}; once it is back: {back}"
    lane = replace(lane, held=reason, guard=replace(lane.guard, hold=Hold.GONE))
    return _untaken(lane, delivery, outcome, now)


def _refused(lane: Lane, delivery: Delivery, outcome: Failed, now: datetime, probe: bool) -> Settled:
    """Nothing that is sent now would fare better: the lane rests, and no delivery loses an attempt by it."""
    return _untaken(breaker.refused(lane, now, probe=probe), delivery, outcome, now)


def _untaken(lane: Lane, delivery: Delivery, outcome: Failed, now: datetime) -> Settled:
    """The attempt was one at the target and not at the delivery: it is written down, and costs the delivery nothing."""
    reason = lane.held or outcome.reason
    row = replace(delivery, state=DeliveryState.PENDING, crashes=0, next_at=None, reason=reason, updated_at=now)
    return Settled(lane=lane, delivery=row, attempt=_attempt(delivery, "refused", outcome, now), counters=Counters())


def _paused(lane: Lane, outcome: Failed, now: datetime) -> Lane:
    if outcome.retry_after is None or outcome.retry_after <= timedelta(0):
        return lane
    until = now + min(outcome.retry_after, LONGEST_PAUSE)
    return replace(lane, pause_until=until if lane.pause_until is None else max(until, lane.pause_until))


def _failed(
    lane: Lane, delivery: Delivery, outcome: Failed, retry: RetrySettings, now: datetime, chance: float
) -> Settled:
    if delivery.attempts:
        lane = replace(lane, guard=budget.charged(lane.guard, retry, now))
    attempt = _attempt(delivery, "failed", outcome, now)
    wait = next_wait(delivery.attempts, retry, chance)
    if wait is not None and too_old(delivery.attempts, delivery.created_at, now, retry):
        days = (now - delivery.created_at) / timedelta(days=1)
        return _dead(lane, delivery, attempt, now, f"given up after {days:.1f} days: {outcome.reason}")
    if wait is None:
        tries = delivery.attempts + 1
        reason = f"given up after {tries} attempt{'' if tries == 1 else 's'}: {outcome.reason}"
        return _dead(lane, delivery, attempt, now, reason)
    asked = min(outcome.retry_after or timedelta(0), LONGEST_PAUSE)
    next_at = now + max(wait, asked, timedelta(0))
    return _row(lane, delivery, attempt, now, DeliveryState.WAITING, outcome.reason, next_at)


def _dead(lane: Lane, delivery: Delivery, attempt: Attempt, now: datetime, reason: str) -> Settled:
    """Given up. In strict order nothing may pass it until somebody says how to go on."""
    guard = replace(lane.guard, lost=lane.guard.lost + 1, gaps=lane.guard.gaps or delivery.op == "event")
    if lane.order is Order.STRICT:
        each = delivery.delivery_id
        guard = replace(guard, hold=Hold.ORDER, dead=each)
        lane = replace(lane, held=f"order: {each} is dead: ureg delivery redrive {each}, or: ureg delivery skip {each}")
    return _row(replace(lane, guard=guard), delivery, attempt, now, DeliveryState.DEAD, reason)


def _row(
    lane: Lane,
    delivery: Delivery,
    attempt: Attempt,
    now: datetime,
    state: DeliveryState,
    reason: str,
    next_at: datetime | None = None,
) -> Settled:
    """The delivery with one more attempt behind it, in its new state."""
    row = replace(
        delivery, state=state, attempts=delivery.attempts + 1, crashes=0, next_at=next_at, reason=reason, updated_at=now
    )
    counters = Counters(retried=int(state is DeliveryState.WAITING), failed=int(state is DeliveryState.DEAD))
    return Settled(lane=lane, delivery=row, attempt=attempt, counters=counters)


def _attempt(delivery: Delivery, word: str, outcome: Rejected | Failed, now: datetime) -> Attempt:
    return Attempt(
        delivery_id=delivery.delivery_id,
        lane_id=delivery.lane_id,
        number=delivery.attempts,
        at=now,
        outcome=word,
        status=outcome.status,
        milliseconds=outcome.milliseconds,
        reason=outcome.reason,
    )
