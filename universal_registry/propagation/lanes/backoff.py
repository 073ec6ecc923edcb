"""How long to wait before the next attempt, and when there is none. Pure; no attempt number is too large."""

from __future__ import annotations

from datetime import datetime, timedelta

from universal_registry.kernel.settings import SLOW_PHASE, RetrySettings


def delay(attempt: int, retry: RetrySettings, chance: float) -> timedelta:
    """The wait of the fast phase after the failed attempt of this number (from 0).

    `base * multiplier ^ attempt`, never above `max_delay_seconds`, jitter included. Additive jitter lengthens it by up
    to `jitter_factor` (`chance` in [0, 1)); full jitter makes it any part of itself.
    """
    try:
        seconds = retry.base_delay_seconds * float(retry.backoff_multiplier) ** max(attempt, 0)
    except OverflowError:
        seconds = retry.max_delay_seconds
    if retry.jitter_enabled and retry.jitter == "full":
        return timedelta(seconds=min(seconds, retry.max_delay_seconds) * _part(chance))
    return timedelta(seconds=min(seconds * _lengthened(retry, chance), retry.max_delay_seconds))


def next_wait(attempt: int, retry: RetrySettings, chance: float) -> timedelta | None:
    """The wait after the failed attempt of this number: fast phase, then slow phase; None: there is no further one."""
    if not retry.enabled:
        return None
    if attempt < retry.max_retries:
        return delay(attempt, retry, chance)
    step = attempt - retry.max_retries
    if not retry.slow_phase or step >= len(SLOW_PHASE):
        return None
    return SLOW_PHASE[step] * _lengthened(retry, chance)


def too_old(attempt: int, created_at: datetime, now: datetime, retry: RetrySettings) -> bool:
    """Whether a delivery is given up for its age after the failed attempt of this number.

    Not before its fast phase is over: what waited long for a target that was paused or down still gets all of that.
    """
    return attempt >= retry.max_retries and now - created_at >= timedelta(seconds=retry.max_age_seconds)


def _lengthened(retry: RetrySettings, chance: float) -> float:
    return 1.0 + retry.jitter_factor * _part(chance) if retry.jitter_enabled else 1.0


def _part(chance: float) -> float:
    return min(max(chance, 0.0), 1.0)
