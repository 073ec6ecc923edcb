"""The breaker's table: each state, each event, what follows."""

from __future__ import annotations

from dataclasses import replace as with_settings
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes import breaker
from universal_registry.propagation.lanes.lane import Breaker, Guard, Hold, Lane, Position
from universal_registry.propagation.lanes.token_bucket import Bucket

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RETRY = RetrySettings()
MINUTE = timedelta(seconds=60)


def lane(**changes: object) -> Lane:
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


def open_lane(**changes: object) -> Lane:
    return lane(**{"breaker": Breaker.OPEN, "failures": 5, "trips": 1, "open_until": NOW + MINUTE, **changes})


def test_the_failure_that_reaches_the_threshold_opens_it() -> None:
    after = lane()
    for count in range(1, 6):
        assert after.breaker is Breaker.CLOSED
        after = breaker.failed(after, NOW, RETRY, probe=True)
        assert after.failures == count
    assert (after.breaker, after.trips, after.open_until) == (Breaker.OPEN, 1, NOW + MINUTE)


def test_a_success_in_between_starts_the_count_again() -> None:
    after = lane(failures=4)
    after = breaker.succeeded(after, probe=True, most=2)
    assert (after.failures, after.trips) == (0, 0)
    assert breaker.failed(after, NOW, RETRY, probe=True).breaker is Breaker.CLOSED


@pytest.mark.parametrize(("trips", "times"), [(0, 2**0), (1, 2), (2, 4), (3, 8), (4, 15), (5, 15), (10**6, 15)])
def test_each_failed_probe_doubles_the_open_time_to_15_minutes(trips: int, times: int) -> None:
    probing = breaker.begin_probe(open_lane(trips=trips, open_until=NOW))
    after = breaker.failed(probing, NOW, RETRY, probe=True)
    assert (after.breaker, after.trips, after.open_until) == (Breaker.OPEN, trips + 1, NOW + times * MINUTE)


def test_a_successful_probe_closes_it_and_forgets() -> None:
    after = breaker.succeeded(breaker.begin_probe(open_lane(trips=9)), probe=True, most=8)
    assert (after.breaker, after.failures, after.trips, after.open_until) == (Breaker.CLOSED, 0, 0, None)


def test_after_closing_it_starts_slowly() -> None:
    after = breaker.succeeded(breaker.begin_probe(open_lane()), probe=True, most=8)
    rounds = []
    while after.guard.ramp:
        rounds.append(after.guard.ramp)
        for _ in range(after.guard.ramp):  # as many as may be under way, all taken
            after = breaker.succeeded(after, probe=False, most=8)
    assert rounds == [1, 2, 4]
    assert after.guard.ramp == 0, "then as many as ever"


def test_a_failure_while_it_starts_slowly_begins_again_from_one() -> None:
    ramping = lane(guard=Guard(ramp=5))
    assert breaker.failed(ramping, NOW, RETRY, probe=False).guard.ramp == 1
    assert breaker.failed(lane(), NOW, RETRY, probe=False).guard.ramp == 0


@pytest.mark.parametrize(("seconds", "longest"), [(1.0, 900), (60.0, 900), (899.0, 900), (3600.0, 3600)])
def test_the_first_open_time_is_exactly_the_setting_and_none_passes_15_minutes(seconds: float, longest: int) -> None:
    retry = with_settings(RETRY, circuit_breaker_timeout_seconds=seconds)
    assert breaker.open_time(1, retry) == timedelta(seconds=seconds)
    assert breaker.open_time(10**9, retry) == timedelta(seconds=longest)


def test_a_refusal_rests_the_target_for_the_longest_time_and_a_success_ends_it() -> None:
    resting = breaker.refused(lane(failures=2), NOW, probe=False)
    assert (resting.breaker, resting.guard.hold) == (Breaker.OPEN, Hold.REFUSED)
    assert resting.open_until == NOW + breaker.LONGEST_OPEN
    assert "refused, probed again at 2026-03-01T12:15:00Z" in breaker.may_send(resting, NOW)
    assert breaker.refused(resting, NOW + MINUTE, probe=False) == resting, "a late answer does not lengthen it"
    probing = breaker.begin_probe(resting)
    again = breaker.refused(probing, NOW + 15 * MINUTE, probe=True)
    assert again.open_until == NOW + 30 * MINUTE
    closed = breaker.succeeded(probing, probe=True, most=2)
    assert (closed.breaker, closed.guard.hold) == (Breaker.CLOSED, Hold.NONE)
    other = breaker.failed(probing, NOW, RETRY, probe=True)
    assert (other.breaker, other.guard.hold) == (Breaker.OPEN, Hold.NONE), "another trouble than before"


def test_people_open_and_reset_it() -> None:
    opened = breaker.force_open(lane(), NOW + MINUTE, "ann")
    assert breaker.may_send(opened, NOW) == "breaker open until 2026-03-01T12:01:00Z, opened by ann"
    assert breaker.probe_due(opened, NOW + MINUTE), "after that, one attempt asks as ever"
    closed = breaker.reset(opened)
    assert (closed.breaker, closed.open_until, closed.guard.opened_by, closed.guard.ramp) == (
        Breaker.CLOSED,
        None,
        "",
        1,
    )
    assert breaker.reset(lane()) == lane()


HOUR = timedelta(hours=1)


def test_a_clock_that_goes_back_lengthens_no_wait() -> None:
    ahead = NOW + HOUR
    opened = open_lane(open_until=ahead + MINUTE, trips=1)
    assert breaker.after_clock_step(opened, NOW, RETRY).open_until == NOW + MINUTE
    asked = lane(pause_until=ahead + 3 * MINUTE, last_failure_at=ahead)
    stepped = breaker.after_clock_step(asked, NOW, RETRY)
    assert stepped.pause_until == NOW + 3 * MINUTE
    assert breaker.after_clock_step(stepped, NOW, RETRY) == stepped, "nor shortens it when it is looked at again"
    drawn = lane(guard=Guard(budget=Bucket(0.0, ahead), rate=Bucket(0.5, ahead)))
    assert breaker.after_clock_step(drawn, NOW, RETRY).guard == Guard(budget=Bucket(0.0, NOW), rate=Bucket(0.5, NOW))


def test_a_clock_that_goes_back_leaves_alone_what_was_written_before() -> None:
    for before in (
        open_lane(),
        lane(pause_until=NOW + 2 * HOUR, last_failure_at=NOW - MINUTE),
        lane(guard=Guard(budget=Bucket(3.0, NOW - MINUTE))),
        breaker.force_open(lane(), NOW + 5 * HOUR, "ann"),
    ):
        assert breaker.after_clock_step(before, NOW, RETRY) == before


def test_an_attempt_begun_before_it_opened_decides_nothing() -> None:
    half = breaker.begin_probe(open_lane())
    for before in (open_lane(), half):
        assert breaker.succeeded(before, probe=False, most=2) == before
        late = breaker.failed(before, NOW + MINUTE, RETRY, probe=False)
        assert replace(late, failures=before.failures) == before
    # An attempt still under way when it opened, which counts as a probe to nobody.
    assert breaker.failed(open_lane(), NOW, RETRY, probe=True).open_until == NOW + MINUTE


def test_sending_is_allowed_only_when_closed() -> None:
    assert breaker.may_send(lane(), NOW) == ""
    assert breaker.may_send(open_lane(), NOW) == "breaker open until 2026-03-01T12:01:00Z"
    assert "probe is due" in breaker.may_send(open_lane(), NOW + MINUTE)
    assert "under way" in breaker.may_send(breaker.begin_probe(open_lane()), NOW + 10 * MINUTE)


def test_exactly_one_probe_once_the_time_is_up() -> None:
    opened = open_lane()
    assert not breaker.probe_due(opened, NOW + MINUTE - timedelta(milliseconds=1))
    assert breaker.probe_due(opened, NOW + MINUTE)
    probing = breaker.begin_probe(opened)
    assert probing.breaker is Breaker.HALF_OPEN
    assert not breaker.probe_due(probing, NOW + 1000 * MINUTE)
    assert not breaker.probe_due(lane(), NOW)


def test_a_lost_probe_gives_way_to_another() -> None:
    probing = breaker.begin_probe(open_lane(), lost_at=NOW + 2 * MINUTE)
    assert not breaker.probe_due(probing, NOW + MINUTE)
    assert breaker.probe_due(probing, NOW + 2 * MINUTE)


def test_a_probe_that_says_nothing_is_followed_by_the_next_at_once() -> None:
    undecided = breaker.probe_undecided(breaker.begin_probe(open_lane(trips=3)), NOW)
    assert (undecided.breaker, undecided.trips) == (Breaker.OPEN, 3)
    assert breaker.probe_due(undecided, NOW)
    assert breaker.probe_undecided(lane(), NOW) == lane()
    assert breaker.probe_undecided(open_lane(), NOW) == open_lane()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"paused": True}, "paused"),
        ({"held": "gone (410): bye"}, "gone (410): bye"),
        ({"pause_until": NOW + MINUTE}, "the target asked for a pause until 2026-03-01T12:01:00Z"),
    ],
)
def test_what_else_keeps_a_lane_back_keeps_the_probe_back(changes: dict[str, object], reason: str) -> None:
    assert breaker.may_send(lane(**changes), NOW) == reason
    assert not breaker.probe_due(open_lane(**{**changes, "open_until": NOW}), NOW)


def test_a_pause_that_is_over_is_over() -> None:
    assert breaker.may_send(lane(pause_until=NOW), NOW) == ""


def test_switched_off_it_never_opens_and_an_open_one_closes() -> None:
    off = with_settings(RETRY, circuit_breaker_enabled=False)
    after = lane()
    for _ in range(100):
        after = breaker.failed(after, NOW, off, probe=True)
    assert (after.breaker, after.failures) == (Breaker.CLOSED, 100)
    assert breaker.failed(open_lane(), NOW, off, probe=False).breaker is Breaker.CLOSED
