"""What failed retries may cost a target: retries help one that stumbles and hurt one that lies down. Pure.

A first attempt is free. A retry that fails costs 1, one that succeeds gives 1 back: only a target that fails more of
them than it takes uses up its budget, and below that retries make at most twice the requests. A first attempt that
succeeds gives 0.1, and time gives one retry every `budget_refill_seconds`, so that a target with little traffic is
still retried. What is left stands in the lane, over restarts.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import Guard
from universal_registry.propagation.lanes.token_bucket import Flow, changed, enough_at, has_enough, level, whole

COST, REWARD, REWARD_OF_RETRY = 1.0, 0.1, 1.0


def flow(retry: RetrySettings) -> Flow:
    """How the budget fills by itself."""
    return Flow(per_second=1.0 / retry.budget_refill_seconds, most=retry.budget)


def left(guard: Guard, retry: RetrySettings, now: datetime) -> float:
    """How many retries may fail before nothing is left."""
    return level(guard.budget, flow(retry), now)


def retries(guard: Guard, retry: RetrySettings, now: datetime) -> int:
    """How many retries may be under way at once: all of them may fail."""
    return whole(guard.budget, flow(retry), now)


def may_retry(guard: Guard, retry: RetrySettings, now: datetime, under_way: int = 0) -> bool:
    """Whether a delivery that has failed before may be tried now, while so many retries are under way."""
    return has_enough(guard.budget, flow(retry), now, 1.0 + under_way)


def retry_at(guard: Guard, retry: RetrySettings, now: datetime) -> datetime:
    """When one may be tried again."""
    return now if guard.budget is None else enough_at(guard.budget, flow(retry), now)


def used_up(guard: Guard, retry: RetrySettings, now: datetime) -> str:
    """Why nothing that failed before may be tried now, in words; empty when it may."""
    if may_retry(guard, retry, now):
        return ""
    when = retry_at(guard, retry, now).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"retry budget used up: of what has failed before one is tried at {when}, the others after it "
        f"(retry.budget {retry.budget:g}, retry.budget_refill_seconds {retry.budget_refill_seconds:g})"
    )


def rewarded(guard: Guard, retry: RetrySettings, now: datetime, *, retried: bool = False) -> Guard:
    """After a success. `retried`: of a delivery that had failed before."""
    if guard.budget is None:
        return guard
    return replace(guard, budget=changed(guard.budget, flow(retry), now, REWARD_OF_RETRY if retried else REWARD))


def charged(guard: Guard, retry: RetrySettings, now: datetime) -> Guard:
    """After a retry that failed."""
    return replace(guard, budget=changed(guard.budget, flow(retry), now, -COST))
