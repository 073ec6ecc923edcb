"""The circuit breaker of a lane, and what else keeps a lane from sending. Pure: lanes in, lanes out."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import Breaker, Hold, Lane

LONGEST_OPEN = timedelta(minutes=15)
"""Failed probes double the open time up to this; one that is set higher from the start stays as it is."""


def may_send(lane: Lane, now: datetime) -> str:
    """Why no ordinary attempt may start now; empty when it may. An open breaker says no until its probe."""
    if reason := _kept_back(lane, now):
        return reason
    match lane.breaker:
        case Breaker.CLOSED:
            return ""
        case Breaker.OPEN:
            return f"{_opening(lane, now)}{f' ({lane.last_error})' if lane.last_error else ''}"
        case Breaker.HALF_OPEN:
            return "breaker half-open: a probe is under way"


def opens_at(lane: Lane, now: datetime) -> datetime | None:
    """When something may be tried again, where only time keeps the lane back. None: now, or when somebody acts."""
    if lane.paused or lane.held:
        return None
    until = [lane.pause_until, lane.open_until if lane.breaker is not Breaker.CLOSED else None]
    return max((each for each in until if each is not None and each > now), default=None)


def _opening(lane: Lane, now: datetime) -> str:
    what = "refused, probed again" if lane.guard.hold is Hold.REFUSED else "breaker open"
    if lane.open_until is None or lane.open_until <= now:
        return f"{what}: a probe is due"
    when = _clock(lane.open_until)
    return f"{what} at {when}" if lane.guard.hold is Hold.REFUSED else f"{what} until {when}{_forced(lane)}"


def _forced(lane: Lane) -> str:
    return f", opened by {lane.guard.opened_by}" if lane.guard.opened_by else ""


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


# --- probes ---------------------------------------------------------------------------------------------------------


def probe_due(lane: Lane, now: datetime) -> bool:
    """Whether exactly one attempt may start as the probe: the open time is over, and nothing else keeps it back."""
    if lane.breaker is Breaker.CLOSED or _kept_back(lane, now):
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


# --- outcomes -------------------------------------------------------------------------------------------------------


def succeeded(lane: Lane, *, probe: bool, most: int) -> Lane:
    """The lane after a success. Only its probe closes an open breaker, not an attempt begun before it opened.

    One that closes starts slowly: one at a time, then two, four, until `most` may be under way as ever.
    """
    if lane.breaker is Breaker.CLOSED:
        ramp = lane.guard.ramp
        if ramp:
            lane = replace(lane, guard=replace(lane.guard, ramp=ramp + 1 if ramp + 1 < most else 0))
        if lane.failures or lane.trips:
            lane = replace(lane, failures=0, trips=0, open_until=None)
        return lane
    if lane.breaker is Breaker.HALF_OPEN and probe:
        return _closed(lane)
    return lane


def failed(lane: Lane, now: datetime, retry: RetrySettings, *, probe: bool) -> Lane:
    """The lane after a failure: counted, and the breaker opened by the failure that reaches the threshold."""
    lane = replace(lane, failures=lane.failures + 1)
    if lane.guard.ramp > 1:
        lane = replace(lane, guard=replace(lane.guard, ramp=1))
    if not retry.circuit_breaker_enabled:
        return replace(lane, breaker=Breaker.CLOSED, trips=0, open_until=None)
    if lane.breaker is Breaker.CLOSED and lane.failures >= retry.circuit_breaker_threshold:
        return _opened(lane, now, retry)
    if lane.breaker is Breaker.HALF_OPEN and probe:
        return _opened(lane, now, retry)
    return lane


def refused(lane: Lane, now: datetime, *, probe: bool) -> Lane:
    """The lane of a target that does not take us: it rests for the longest time, then one attempt asks again."""
    if lane.breaker is not Breaker.CLOSED and not (lane.breaker is Breaker.HALF_OPEN and probe):
        return lane
    lane = replace(lane, guard=replace(lane.guard, hold=Hold.REFUSED))
    return replace(lane, breaker=Breaker.OPEN, trips=max(lane.trips, 1), open_until=now + LONGEST_OPEN)


def open_time(trips: int, retry: RetrySettings) -> timedelta:
    """How long the breaker stays open when it opens for the `trips`-th time in a row (from 1)."""
    first = timedelta(seconds=retry.circuit_breaker_timeout_seconds)
    return min(first * (1 << min(max(trips - 1, 0), 20)), max(first, LONGEST_OPEN))


def _opened(lane: Lane, now: datetime, retry: RetrySettings) -> Lane:
    trips, guard = lane.trips + 1, lane.guard
    if guard.hold is Hold.REFUSED:  # another trouble than before
        guard = replace(guard, hold=Hold.NONE)
    return replace(lane, breaker=Breaker.OPEN, trips=trips, open_until=now + open_time(trips, retry), guard=guard)


def _closed(lane: Lane) -> Lane:
    guard = replace(lane.guard, ramp=1, opened_by="", hold=_unless_refused(lane.guard.hold))
    return replace(lane, breaker=Breaker.CLOSED, failures=0, trips=0, open_until=None, guard=guard)


def _unless_refused(hold: Hold) -> Hold:
    return Hold.NONE if hold is Hold.REFUSED else hold


# --- people and clocks ----------------------------------------------------------------------------------------------


def reset(lane: Lane) -> Lane:
    """Closed by a person, with a slow start."""
    return lane if lane.breaker is Breaker.CLOSED and not lane.failures else _closed(lane)


def force_open(lane: Lane, until: datetime, by: str) -> Lane:
    """Opened by a person until a moment; then one attempt asks, as ever."""
    guard = replace(lane.guard, opened_by=by)
    return replace(lane, breaker=Breaker.OPEN, trips=max(lane.trips, 1), open_until=until, guard=guard)


def written_ahead(lane: Lane, now: datetime) -> bool:
    """Whether something of the lane was written by a clock that stood later than `now`."""
    buckets = [each.at for each in (lane.guard.budget, lane.guard.rate) if each is not None]
    times = [lane.last_failure_at, lane.last_success_at, *buckets]
    return any(each is not None and each > now for each in times)


def after_clock_step(lane: Lane, now: datetime, retry: RetrySettings) -> Lane:
    """The lane when the clock has gone back: no wait is longer than it would be from now on.

    Whatever was written down by a clock that stood later than `now` keeps its length and begins now.
    """
    guard = lane.guard
    if lane.open_until is not None and not guard.opened_by:
        longest = LONGEST_OPEN if guard.hold is Hold.REFUSED else open_time(lane.trips, retry)
        lane = replace(lane, open_until=min(lane.open_until, now + longest))
    written = lane.last_failure_at
    if written is not None and written > now:
        if lane.pause_until is not None:
            lane = replace(lane, pause_until=now + max(lane.pause_until - written, timedelta(0)))
        lane = replace(lane, last_failure_at=now)
    if lane.last_success_at is not None and lane.last_success_at > now:
        lane = replace(lane, last_success_at=now)
    buckets = {
        name: replace(bucket, at=now)
        for name, bucket in (("budget", guard.budget), ("rate", guard.rate))
        if bucket is not None and bucket.at > now
    }
    return replace(lane, guard=replace(guard, **buckets)) if buckets else lane
