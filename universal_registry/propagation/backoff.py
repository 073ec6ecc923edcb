"""How long to wait before the next attempt. Pure; no attempt number is too large."""

from __future__ import annotations

from datetime import timedelta

from universal_registry.kernel.settings import SLOW_PHASE, RetrySettings


def delay(attempt: int, retry: RetrySettings, chance: float) -> timedelta:
    """The wait of the fast phase after the failed attempt of this number (from 0).

    `base * multiplier ^ attempt`, lengthened by up to `jitter_factor` (`chance` in [0, 1)), never above
    `max_delay_seconds`, jitter included.
    """
    try:
        seconds = retry.base_delay_seconds * float(retry.backoff_multiplier) ** max(attempt, 0)
    except OverflowError:
        seconds = retry.max_delay_seconds
    return timedelta(seconds=min(seconds * _jitter(retry, chance), retry.max_delay_seconds))


def next_wait(attempt: int, retry: RetrySettings, chance: float) -> timedelta | None:
    """The wait after the failed attempt of this number: fast phase, then slow phase; None: there is no further one."""
    if not retry.enabled:
        return None
    if attempt < retry.max_retries:
        return delay(attempt, retry, chance)
    step = attempt - retry.max_retries
    if not retry.slow_phase or step >= len(SLOW_PHASE):
        return None
    return SLOW_PHASE[step] * _jitter(retry, chance)


def _jitter(retry: RetrySettings, chance: float) -> float:
    return 1.0 + retry.jitter_factor * min(max(chance, 0.0), 1.0) if retry.jitter_enabled else 1.0
