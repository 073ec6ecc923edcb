"""When the engine itself disables a target: by one policy, after a notice, and never to the loss of a delivery. Pure.

Both must hold: so many days of failures without a success, and so many deliveries given up in that time. Half of both
is the notice, and a day lies between it and the end. What is then still to come is held until it is enabled.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import Hold, Lane
from universal_registry.registry.words import shell_word

NOTICE = timedelta(days=1)


def judged(lane: Lane, now: datetime, retry: RetrySettings) -> Lane:
    """The lane after a failure, with the notice or the end that is due."""
    guard = lane.guard
    if lane.held or not retry.auto_disable_days or guard.failing_since is None:
        return lane
    failing, limit = now - guard.failing_since, timedelta(days=retry.auto_disable_days)
    if guard.noticed_at is None:
        due = failing >= limit / 2 and 2 * guard.lost >= retry.auto_disable_dead
        return replace(lane, guard=replace(guard, noticed_at=now)) if due else lane
    if failing < limit or guard.lost < retry.auto_disable_dead or now - guard.noticed_at < NOTICE:
        return lane
    days = failing / timedelta(days=1)
    back = f"ureg target enable {shell_word(lane.target_name)}"
    held = f"disabled: {days:.1f} days without a success, {guard.lost} given up ({lane.last_error}); {back}"
    return replace(lane, held=held, guard=replace(guard, hold=Hold.DISABLED, by=""))


def notice(lane: Lane) -> str:
    """What people are to read of a target that will be disabled; empty when nothing is due."""
    guard = lane.guard
    if guard.noticed_at is None or guard.failing_since is None or lane.held:
        return ""
    since = f"{guard.failing_since:%Y-%m-%d}"
    return f"failing since {since}, {guard.lost} given up: it will be disabled unless something succeeds"
