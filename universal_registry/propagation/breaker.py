"""The circuit breaker of a lane, and what else keeps a lane from sending. Pure: lanes in, lanes out."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lane import Breaker, Lane

LONGEST_OPEN = 15
"""The longest open time, as a multiple of the first."""


def may_send(lane: Lane, now: datetime) -> str:
    """Why no ordinary attempt may start now; empty when it may. An open breaker says no until its probe."""
    if reason := _kept_back(lane, now):
        return reason
    match lane.breaker:
        case Breaker.CLOSED:
            return ""
        case Breaker.OPEN:
            cause = f" ({lane.last_error})" if lane.last_error else ""
            if lane.open_until is None or lane.open_until <= now:
                return f"breaker open: a probe is due{cause}"
            return f"breaker open until {_clock(lane.open_until)}{cause}"
        case Breaker.HALF_OPEN:
            return "breaker half-open: a probe is under way"


def _kept_back(lane: Lane, now: datetime) -> str:
    if lane.paused:
        return "paused"
    if lane.held:
        return lane.held
    if lane.pause_until is not None and lane.pause_until > now:
        return f"the target asked for a pause until {_clock(lane.pause_until)}"
    return ""


def _clock(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def probe_due(lane: Lane, now: datetime) -> bool:
    """Whether exactly one attempt may start as the probe: the open time is over, and nothing else keeps it back."""
    if _kept_back(lane, now) or lane.breaker is Breaker.CLOSED:
        return False
    if lane.breaker is Breaker.HALF_OPEN:  # the probe under way counts as lost once its time is over
        return lane.open_until is not None and lane.open_until <= now
    return lane.open_until is None or lane.open_until <= now


def begin_probe(lane: Lane, lost_at: datetime | None = None) -> Lane:
    """The lane while its probe is under way. `lost_at`: when the probe counts as lost and another may start."""
    return replace(lane, breaker=Breaker.HALF_OPEN, open_until=lost_at)


def probe_undecided(lane: Lane, now: datetime) -> Lane:
    """The lane after a probe that ended without saying anything of the target: the next attempt probes, at once.

    Also for a lane found half-open when its owner starts: that probe died with the owner before.
    """
    return replace(lane, breaker=Breaker.OPEN, open_until=now) if lane.breaker is Breaker.HALF_OPEN else lane


def succeeded(lane: Lane, *, probe: bool) -> Lane:
    """The lane after a success. Only its probe closes an open breaker, not an attempt begun before it opened."""
    if lane.breaker is Breaker.CLOSED or (lane.breaker is Breaker.HALF_OPEN and probe):
        return replace(lane, breaker=Breaker.CLOSED, failures=0, trips=0, open_until=None)
    return lane


def failed(lane: Lane, now: datetime, retry: RetrySettings, *, probe: bool) -> Lane:
    """The lane after a failure: counted, and the breaker opened by the failure that reaches the threshold."""
    lane = replace(lane, failures=lane.failures + 1)
    if not retry.circuit_breaker_enabled:
        return replace(lane, breaker=Breaker.CLOSED, trips=0, open_until=None)
    if lane.breaker is Breaker.CLOSED and lane.failures >= retry.circuit_breaker_threshold:
        return _opened(lane, now, retry)
    if lane.breaker is Breaker.HALF_OPEN and probe:
        return _opened(lane, now, retry)
    return lane


def open_time(trips: int, retry: RetrySettings) -> timedelta:
    """How long the breaker stays open when it opens for the `trips`-th time in a row (from 1)."""
    times = min(2 ** min(max(trips - 1, 0), 10), LONGEST_OPEN)
    return timedelta(seconds=retry.circuit_breaker_timeout_seconds * times)


def _opened(lane: Lane, now: datetime, retry: RetrySettings) -> Lane:
    trips = lane.trips + 1
    return replace(lane, breaker=Breaker.OPEN, trips=trips, open_until=now + open_time(trips, retry))
