"""Whatever the far side does and whatever the clock says: no delivery is lost, no wait is negative."""

from __future__ import annotations

from dataclasses import replace as replace_settings
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from universal_registry.kernel.settings import SLOW_PHASE, RetrySettings
from universal_registry.propagation.lanes import breaker
from universal_registry.propagation.lanes.backoff import delay, next_wait
from universal_registry.propagation.lanes.lane import Breaker, Delivery, DeliveryState, Lane, Position
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.lanes.settle import LONGEST_PAUSE, Terms, settle

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
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
    created_at=START,
    updated_at=START,
)

retries = st.builds(
    RetrySettings,
    enabled=st.booleans(),
    max_retries=st.integers(0, 1000),
    base_delay_seconds=st.floats(0.001, 86400),
    max_delay_seconds=st.floats(0.001, 604800),
    backoff_multiplier=st.floats(1, 100),
    jitter_enabled=st.booleans(),
    jitter_factor=st.floats(0, 1),
    jitter=st.sampled_from(["additive", "full"]),
    max_age_seconds=st.floats(1, 10**8),
    budget=st.floats(1, 100),
    budget_refill_seconds=st.floats(0.001, 86400),
    slow_phase=st.booleans(),
    circuit_breaker_enabled=st.booleans(),
    circuit_breaker_threshold=st.integers(1, 20),
    circuit_breaker_timeout_seconds=st.floats(0.001, 86400),
)
chances = st.floats(0, 1, exclude_max=True)
attempts = st.one_of(st.integers(0, 30), st.integers(0, 10**12))
pauses = st.one_of(st.none(), st.timedeltas(timedelta(days=-400), timedelta(days=400)))
moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Accepted, status=st.integers(200, 299), milliseconds=st.just(1.0)),
    st.builds(Rejected, reason=st.just("no"), status=st.sampled_from([400, 413, 422]), milliseconds=st.just(1.0)),
    st.builds(
        Failed,
        reason=st.just("down"),
        status=st.one_of(st.none(), st.integers(300, 599)),
        milliseconds=st.just(1.0),
        retry_after=pauses,
    ),
)
lanes = st.builds(
    lambda state, failures, trips, until, pause: replace(
        LANE, breaker=state, failures=failures, trips=trips, open_until=until, pause_until=pause
    ),
    st.sampled_from(Breaker),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.one_of(st.none(), moments),
    st.one_of(st.none(), moments),
)


@given(attempts, retries, chances)
def test_a_wait_is_between_nothing_and_the_cap(attempt: int, retry: RetrySettings, chance: float) -> None:
    wait = delay(attempt, retry, chance).total_seconds()
    assert 0 <= wait <= retry.max_delay_seconds + 1e-6
    exact = delay(attempt, replace_settings(retry, jitter="additive"), 0.0).total_seconds()
    if retry.jitter == "full" and retry.jitter_enabled:
        assert wait <= exact + 1e-6
        return
    assert exact - 1e-6 <= wait <= exact * (1 + retry.jitter_factor) + 1e-6


@given(attempts, retries, chances)
def test_attempts_end_exactly_where_the_settings_say(attempt: int, retry: RetrySettings, chance: float) -> None:
    allowed = retry.max_retries + (len(SLOW_PHASE) if retry.slow_phase else 0) if retry.enabled else 0
    assert (next_wait(attempt, retry, chance) is not None) == (attempt < allowed)


@given(lanes, attempts, outcomes, moments, chances, retries, st.booleans())
def test_every_outcome_delivers_or_leaves_a_row(
    lane: Lane, tried: int, outcome: Outcome, now: datetime, chance: float, retry: RetrySettings, probe: bool
) -> None:
    delivery = replace(DELIVERY, attempts=tried)
    settled = settle(lane, delivery, outcome, Terms(retry=retry), now=now, chance=chance, probe=probe)
    assert (settled.delivery is None) == isinstance(outcome, Accepted)
    assert (settled.attempt is None) == isinstance(outcome, Accepted)
    if settled.delivery is not None:
        row = settled.delivery
        counted = not (isinstance(outcome, Failed) and outcome.status in (401, 403, 404, 410))
        assert row.attempts == tried + counted
        assert (row.delivery_id, row.key, row.position) == (delivery.delivery_id, delivery.key, delivery.position)
        assert (row.next_at is not None) == (row.state is DeliveryState.WAITING)
        assert row.next_at is None or row.next_at >= now
        assert row.reason
    assert settled.lane.position == lane.position
    assert (settled.lane.rows, settled.lane.dead) == (lane.rows, lane.dead)
    if settled.lane.pause_until != lane.pause_until:
        assert settled.lane.pause_until is not None
        assert now < settled.lane.pause_until <= now + LONGEST_PAUSE
    if not retry.circuit_breaker_enabled and isinstance(outcome, Failed) and outcome.status not in (401, 403, 404, 410):
        assert settled.lane.breaker is Breaker.CLOSED


@given(lanes, outcomes, moments, retries)
def test_a_probe_always_ends(lane: Lane, outcome: Outcome, now: datetime, retry: RetrySettings) -> None:
    probing = breaker.begin_probe(lane)
    settled = settle(probing, DELIVERY, outcome, Terms(retry=retry), now=now, chance=0.0, probe=True)
    assert settled.lane.breaker is not Breaker.HALF_OPEN
    if settled.lane.breaker is Breaker.OPEN:
        assert settled.lane.open_until is not None
        longest = max(timedelta(seconds=retry.circuit_breaker_timeout_seconds), breaker.LONGEST_OPEN)
        assert now <= settled.lane.open_until <= now + longest + timedelta(microseconds=1)


@given(st.lists(st.tuples(outcomes, moments, chances), max_size=40), retries)
def test_a_delivery_ends_delivered_or_in_a_row_after_any_history(
    history: list[tuple[Outcome, datetime, float]], retry: RetrySettings
) -> None:
    lane, delivery = LANE, DELIVERY
    for outcome, now, chance in history:
        settled = settle(lane, delivery, outcome, Terms(retry=retry), now=now, chance=chance)
        lane = settled.lane
        if settled.delivery is None:
            assert lane.delivered == 1
            return
        delivery = settled.delivery
        if delivery.state is DeliveryState.DEAD:
            assert settled.counters.failed == 1
            return
    assert delivery.state in (DeliveryState.PENDING, DeliveryState.WAITING)
    assert delivery.attempts <= len(history)


@given(lanes, moments)
def test_at_no_moment_both_an_ordinary_attempt_and_a_probe_may_start(lane: Lane, now: datetime) -> None:
    assert not (breaker.may_send(lane, now) == "" and breaker.probe_due(lane, now))
