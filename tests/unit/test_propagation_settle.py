"""What follows from each outcome."""

from __future__ import annotations

from dataclasses import replace as with_settings
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.breaker import LONGEST_OPEN
from universal_registry.propagation.lanes.lane import (
    Breaker,
    Counters,
    Delivery,
    DeliveryState,
    Guard,
    Hold,
    Lane,
    Order,
    Position,
)
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.lanes.settle import Settled, Terms, arrival, news, settle
from universal_registry.propagation.lanes.token_bucket import Bucket

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RETRY = RetrySettings()
LANE = Lane(
    lane_id="t1",
    target_uid="t1",
    target_namespace="system",
    target_name="mine",
    transport="webhook",
    incarnation="0123456789ab",
    position=Position(7, 0),
)
DELIVERY = Delivery(
    delivery_id="dlv_1",
    lane_id="t1",
    session_id="r1",
    route_uid="r1",
    op="put",
    kind="alias",
    namespace="default",
    name="gs",
    revision=8,
    seq=0,
    created_at=NOW,
    updated_at=NOW,
)
OK = Accepted(status=204, milliseconds=3.0)


def failed(status: int | None = 503, retry_after: float | None = None) -> Failed:
    pause = None if retry_after is None else timedelta(seconds=retry_after)
    return Failed(reason="answered 503", status=status, milliseconds=3.0, retry_after=pause)


def after(outcome: Outcome, lane: Lane = LANE, delivery: Delivery = DELIVERY, retry: RetrySettings = RETRY) -> Settled:
    return settle(lane, delivery, outcome, Terms(retry=retry), now=NOW, chance=0.0)


def row(settled: Settled) -> Delivery:
    assert settled.delivery is not None
    return settled.delivery


def test_accepted_leaves_no_row_and_forgets_failures() -> None:
    settled = after(OK, replace(LANE, failures=4, delivered=10))
    assert (settled.delivery, settled.attempt) == (None, None)
    assert (settled.lane.failures, settled.lane.delivered, settled.lane.last_success_at) == (0, 11, NOW)
    assert settled.counters == Counters(executed=1, delivered=1)


def test_of_what_arrives_the_time_is_kept_for_one_shot_sessions_only() -> None:
    assert arrival(LANE, DELIVERY, OK, NOW) is None
    for of in (replace(DELIVERY, session_id="s1", route_uid=""), replace(DELIVERY, session_id="s1", replay_of="dlv_0")):
        found = arrival(LANE, of, OK, NOW)
        assert found is not None
        assert (found.session_id, found.target_name, found.delivery_id) == ("s1", "mine", "dlv_1")
        assert (found.began_at, found.arrived_at) == (NOW - timedelta(milliseconds=3), NOW)


def test_only_webhooks_count_as_webhooks() -> None:
    assert after(OK, replace(LANE, transport="file")).counters == Counters(executed=1)


def test_rejected_is_dead_and_no_word_about_the_target() -> None:
    lane = replace(LANE, failures=4)
    settled = after(Rejected(reason="answered 422", status=422, milliseconds=1.0), lane)
    assert settled.lane == replace(lane, guard=Guard(lost=1))
    assert (row(settled).state, row(settled).reason) == (DeliveryState.DEAD, "rejected: answered 422")
    assert settled.attempt is not None
    assert (settled.attempt.outcome, settled.attempt.number, settled.attempt.status) == ("rejected", 0, 422)
    assert settled.counters == Counters(failed=1)


@pytest.mark.parametrize("outcome", [Rejected(reason="no", status=400, milliseconds=1.0), failed(410)])
def test_a_probe_that_decides_nothing_does_not_stay_half_open(outcome: Outcome) -> None:
    probing = replace(LANE, breaker=Breaker.HALF_OPEN, failures=5, trips=2)
    settled = after(outcome, probing)
    assert (settled.lane.breaker, settled.lane.open_until, settled.lane.trips) == (Breaker.OPEN, NOW, 2)


@pytest.mark.parametrize(("attempts", "wait"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 300), (12, 86400)])
def test_failed_waits_by_the_number_of_the_attempt(attempts: int, wait: int) -> None:
    settled = after(failed(), delivery=replace(DELIVERY, attempts=attempts))
    waiting = row(settled)
    assert (waiting.state, waiting.attempts) == (DeliveryState.WAITING, attempts + 1)
    assert waiting.next_at == NOW + timedelta(seconds=wait)
    assert settled.attempt is not None
    assert settled.attempt.number == attempts
    assert settled.counters == Counters(retried=1)
    assert (settled.lane.last_failure_at, settled.lane.last_error) == (NOW, "answered 503")


@pytest.mark.parametrize(
    ("retry", "attempts", "reason"),
    [
        (with_settings(RETRY, enabled=False), 0, "given up after 1 attempt: answered 503"),
        (with_settings(RETRY, slow_phase=False), 5, "given up after 6 attempts: answered 503"),
        (RETRY, 13, "given up after 14 attempts: answered 503"),
    ],
)
def test_an_exhausted_delivery_is_dead_and_still_counts_for_the_breaker(
    retry: RetrySettings, attempts: int, reason: str
) -> None:
    settled = after(failed(), replace(LANE, failures=4), replace(DELIVERY, attempts=attempts), retry)
    assert (row(settled).state, row(settled).next_at, row(settled).reason) == (DeliveryState.DEAD, None, reason)
    assert settled.counters == Counters(failed=1)
    assert settled.lane.breaker is Breaker.OPEN


@pytest.mark.parametrize("status", [None, 301, 408, 418, 429, 500, 503])
def test_each_failure_counts_for_the_breaker(status: int | None) -> None:
    assert after(failed(status)).lane.failures == 1


def test_retry_after_is_a_floor_and_pauses_the_lane() -> None:
    settled = after(failed(429, retry_after=90))
    assert settled.lane.pause_until == row(settled).next_at == NOW + timedelta(seconds=90)
    short = after(failed(429, retry_after=5), delivery=replace(DELIVERY, attempts=4))
    assert (short.lane.pause_until, row(short).next_at) == (
        NOW + timedelta(seconds=5),
        NOW + timedelta(seconds=16),
    )


def test_retry_after_is_clamped_never_negative_and_never_shortens_a_pause() -> None:
    day = timedelta(hours=24)
    long = after(failed(503, retry_after=10**8))
    assert long.lane.pause_until == row(long).next_at == NOW + day
    past = after(failed(503, retry_after=-50))
    assert (past.lane.pause_until, row(past).next_at) == (None, NOW + timedelta(seconds=1))
    paused = replace(LANE, pause_until=NOW + day)
    assert after(failed(503, retry_after=1), paused).lane.pause_until == NOW + day


def test_gone_disables_the_lane_and_keeps_the_delivery() -> None:
    settled = after(failed(410), replace(LANE, failures=4))
    back = "ureg target add mine URL, or: ureg target enable mine"
    assert settled.lane.held == f"gone (410): answered 503; once it is back: {back}"
    assert (settled.lane.breaker, settled.lane.failures) == (Breaker.CLOSED, 4)
    assert settled.lane.guard.hold is Hold.GONE
    kept = row(settled)
    assert (kept.state, kept.reason, kept.attempts, kept.next_at) == (DeliveryState.PENDING, settled.lane.held, 0, None)
    assert settled.attempt is not None
    assert settled.counters == Counters()


@pytest.mark.parametrize("outcome", [failed(401), failed(403), failed(404), replace(failed(None), setup=True)])
def test_a_refusal_rests_the_target_and_costs_no_attempt(outcome: Failed) -> None:
    settled = after(outcome, delivery=replace(DELIVERY, attempts=13))
    assert (settled.lane.breaker, settled.lane.guard.hold) == (Breaker.OPEN, Hold.REFUSED)
    assert settled.lane.open_until == NOW + LONGEST_OPEN
    kept = row(settled)
    assert (kept.state, kept.attempts) == (DeliveryState.PENDING, 13), "it would have been its last"
    assert settled.attempt is not None
    assert settled.attempt.outcome == "refused"
    assert news(LANE, settled) == [("target refuses", {"reason": "answered 503"})]


def test_a_rejection_is_tried_again_where_the_target_wants_it() -> None:
    terms = Terms(retry=RETRY, retry_rejected=True)
    rejected = Rejected(reason="answered 422", status=422, milliseconds=1.0)
    settled = settle(LANE, DELIVERY, rejected, terms, now=NOW, chance=0.0)
    assert (row(settled).state, row(settled).next_at) == (DeliveryState.WAITING, NOW + timedelta(seconds=1))
    assert settled.lane == LANE, "still no word about the target"
    last = settle(LANE, replace(DELIVERY, attempts=13), rejected, terms, now=NOW, chance=0.0)
    assert row(last).state is DeliveryState.DEAD


def test_old_age_ends_a_delivery_but_only_after_its_fast_phase() -> None:
    old = replace(DELIVERY, created_at=NOW - timedelta(days=7), attempts=4)
    assert row(after(failed(), delivery=old)).state is DeliveryState.WAITING
    spent = row(after(failed(), delivery=replace(old, attempts=5)))
    assert (spent.state, spent.reason) == (DeliveryState.DEAD, "given up after 7.0 days: answered 503")
    younger = replace(old, attempts=5, created_at=old.created_at + timedelta(seconds=1))
    assert row(after(failed(), delivery=younger)).state is DeliveryState.WAITING


def test_in_strict_order_a_death_holds_the_lane() -> None:
    strict = replace(LANE, order=Order.STRICT)
    settled = after(Rejected(reason="no", status=422, milliseconds=1.0), strict)
    assert (settled.lane.guard.hold, settled.lane.guard.dead) == (Hold.ORDER, "dlv_1")
    assert "ureg delivery redrive dlv_1, or: ureg delivery skip dlv_1" in settled.lane.held


def test_the_budget_pays_for_failed_retries_only() -> None:
    assert after(failed()).lane.guard.budget is None, "a first attempt is free"
    retried = after(failed(), delivery=replace(DELIVERY, attempts=1)).lane
    assert retried.guard.budget == Bucket(9.0, NOW)
    assert after(OK, retried).lane.guard.budget == Bucket(9.1, NOW)
    assert after(OK, retried, replace(DELIVERY, attempts=1)).lane.guard.budget is None, "a retry that succeeds gives 1"
    assert after(OK, LANE).lane.guard.budget is None


def test_a_success_forgets_how_long_it_went_wrong() -> None:
    lane = after(failed()).lane
    assert lane.guard.failing_since == NOW
    later = settle(lane, DELIVERY, failed(), Terms(retry=RETRY), now=NOW + timedelta(hours=1), chance=0.0).lane
    assert later.guard.failing_since == NOW
    assert after(OK, replace(later, guard=replace(later.guard, lost=3, noticed_at=NOW))).lane.guard == Guard()


def test_a_row_keeps_what_it_is_about() -> None:
    kept = row(after(failed()))
    assert (kept.delivery_id, kept.key, kept.position, kept.created_at) == (
        DELIVERY.delivery_id,
        DELIVERY.key,
        Position(8, 0),
        NOW,
    )


def test_an_attempt_from_before_the_breaker_opened_is_settled_without_it() -> None:
    opened = replace(LANE, breaker=Breaker.OPEN, open_until=NOW + timedelta(seconds=60), failures=5, trips=1)
    late = settle(opened, DELIVERY, OK, Terms(retry=RETRY), now=NOW, chance=0.0, probe=False)
    assert late.delivery is None
    assert (late.lane.breaker, late.lane.open_until, late.lane.delivered) == (Breaker.OPEN, opened.open_until, 1)
