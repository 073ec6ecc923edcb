"""What follows from the outcome of one attempt: for the lane, for the delivery, for the totals. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

import msgspec
from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation import breaker
from universal_registry.propagation.backoff import next_wait
from universal_registry.propagation.lane import Attempt, Breaker, Counters, Delivery, DeliveryState, Lane
from universal_registry.propagation.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.target import shell_word

LONGEST_PAUSE = timedelta(hours=24)
"""No `Retry-After` is obeyed for longer."""
GONE = 410


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """`delivery` None: delivered, its row (if any) goes. Otherwise its row as it must be stored now. `attempt`: the
    record of an attempt that did not succeed. `counters`: what to add to the totals."""

    lane: Lane
    delivery: Delivery | None
    attempt: Attempt | None
    counters: Counters


def settle(
    lane: Lane,
    delivery: Delivery,
    outcome: Outcome,
    *,
    now: datetime,
    chance: float,
    retry: RetrySettings,
    probe: bool = True,
) -> Settled:
    """The result of an attempt. `delivery.attempts`: how many ended before this one, which is so the number of it.

    `chance` in [0, 1) for the jitter. `probe` False: the attempt began before the breaker opened and decides nothing
    about it. The counts `rows` and `dead` of the lane are the store's to keep.
    """
    match outcome:
        case Accepted():
            return _accepted(lane, now, probe)
        case Rejected():
            return _rejected(lane, delivery, outcome, now, probe)
        case Failed():
            attempt = _attempt(delivery, "failed", outcome, now)
            lane = replace(lane, last_failure_at=now, last_error=outcome.reason)
            if outcome.status == GONE:
                return _gone(lane, delivery, outcome, attempt, now, probe)
            lane = _paused(breaker.failed(lane, now, retry, probe=probe), outcome, now)
            return _failed(lane, delivery, outcome, attempt, now, next_wait(delivery.attempts, retry, chance))
        case _:
            assert_never(outcome)


def news(before: Lane, settled: Settled) -> list[tuple[str, dict[str, object]]]:
    """What somebody may have to look at: event names with their fields, for the log."""
    after, row = settled.lane, settled.delivery
    found: list[tuple[str, dict[str, object]]] = []
    if before.breaker is Breaker.CLOSED and after.breaker is Breaker.OPEN:
        found.append(("breaker opened", {"reason": after.last_error, "failures": after.failures}))
    if before.breaker is not Breaker.CLOSED and after.breaker is Breaker.CLOSED:
        found.append(("breaker closed", {}))
    if after.held and after.held != before.held:
        found.append(("target held", {"reason": after.held}))
    if row is not None and row.state is DeliveryState.DEAD:
        found.append(("delivery given up", {"delivery": row.delivery_id, "reason": row.reason}))
    return found


def _accepted(lane: Lane, now: datetime, probe: bool) -> Settled:
    lane = breaker.succeeded(lane, probe=probe)
    lane = replace(lane, delivered=lane.delivered + 1, last_success_at=now, last_error="")
    delivered = 1 if lane.transport == "webhook" else 0
    return Settled(lane=lane, delivery=None, attempt=None, counters=Counters(executed=1, delivered=delivered))


def _rejected(lane: Lane, delivery: Delivery, outcome: Rejected, now: datetime, probe: bool) -> Settled:
    """The payload's fault: dead at once, and no word about the target's health."""
    if probe:
        lane = breaker.probe_undecided(lane, now)
    attempt = _attempt(delivery, "rejected", outcome, now)
    return _row(lane, delivery, attempt, now, DeliveryState.DEAD, f"rejected: {outcome.reason}")


def _gone(lane: Lane, delivery: Delivery, outcome: Failed, attempt: Attempt, now: datetime, probe: bool) -> Settled:
    """The target says that it is no more: it is held until somebody looks, and so is all that is meant for it."""
    if probe:
        lane = breaker.probe_undecided(lane, now)
    back = f"ureg target add {shell_word(lane.target_name)} URL"
    lane = replace(lane, held=f"gone ({GONE}): {outcome.reason}; once it is back: {back}")
    return _row(lane, delivery, attempt, now, DeliveryState.PENDING, lane.held)


def _paused(lane: Lane, outcome: Failed, now: datetime) -> Lane:
    if outcome.retry_after is None or outcome.retry_after <= timedelta(0):
        return lane
    until = now + min(outcome.retry_after, LONGEST_PAUSE)
    return replace(lane, pause_until=until if lane.pause_until is None else max(until, lane.pause_until))


def _failed(
    lane: Lane, delivery: Delivery, outcome: Failed, attempt: Attempt, now: datetime, wait: timedelta | None
) -> Settled:
    if wait is None:
        tries = delivery.attempts + 1
        reason = f"given up after {tries} attempt{'' if tries == 1 else 's'}: {outcome.reason}"
        return _row(lane, delivery, attempt, now, DeliveryState.DEAD, reason)
    asked = min(outcome.retry_after or timedelta(0), LONGEST_PAUSE)
    return _row(
        lane, delivery, attempt, now, DeliveryState.WAITING, outcome.reason, now + max(wait, asked, timedelta(0))
    )


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
