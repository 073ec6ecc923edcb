"""The breaker's table: each state, each event, what follows."""

from __future__ import annotations

from dataclasses import replace as with_settings
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation import breaker
from universal_registry.propagation.lane import Breaker, Lane, Position

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
    after = breaker.succeeded(after, probe=True)
    assert (after.failures, after.trips) == (0, 0)
    assert breaker.failed(after, NOW, RETRY, probe=True).breaker is Breaker.CLOSED


@pytest.mark.parametrize(("trips", "times"), [(0, 2**0), (1, 2), (2, 4), (3, 8), (4, 15), (5, 15), (10**6, 15)])
def test_each_failed_probe_doubles_the_open_time_to_15_times(trips: int, times: int) -> None:
    probing = breaker.begin_probe(open_lane(trips=trips, open_until=NOW))
    after = breaker.failed(probing, NOW, RETRY, probe=True)
    assert (after.breaker, after.trips, after.open_until) == (Breaker.OPEN, trips + 1, NOW + times * MINUTE)


def test_a_successful_probe_closes_it_and_forgets() -> None:
    after = breaker.succeeded(breaker.begin_probe(open_lane(trips=9)), probe=True)
    assert (after.breaker, after.failures, after.trips, after.open_until) == (Breaker.CLOSED, 0, 0, None)


def test_an_attempt_begun_before_it_opened_decides_nothing() -> None:
    half = breaker.begin_probe(open_lane())
    for before in (open_lane(), half):
        assert breaker.succeeded(before, probe=False) == before
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
