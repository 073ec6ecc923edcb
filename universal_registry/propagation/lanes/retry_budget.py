"""What failed retries may cost a target: retries help one that stumbles and hurt one that lies down. Pure.

A first attempt is free. A retry that fails costs 1, each success gives 0.1 back, and time gives one retry every
`budget_refill_seconds`, so that a target with little traffic is still retried. A retry that succeeds costs nothing:
what waited for a target that is back must not go on waiting. What is left stands in the lane, over restarts.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from universal_registry.kernel.settings import RetrySettings
from universal_registry.propagation.lanes.lane import Guard
from universal_registry.propagation.lanes.token_bucket import Flow, changed, enough_at, has_enough

COST, REWARD = 1.0, 0.1


def flow(retry: RetrySettings) -> Flow:
    """How the budget fills by itself."""
    return Flow(per_second=1.0 / retry.budget_refill_seconds, most=retry.budget)


def may_retry(guard: Guard, retry: RetrySettings, now: datetime, under_way: int = 0) -> bool:
    """Whether a delivery that has failed before may be tried now, while so many retries are under way."""
    return has_enough(guard.budget, flow(retry), now, 1.0 + under_way)


def retry_at(guard: Guard, retry: RetrySettings, now: datetime) -> datetime:
    """When one may be tried again."""
    return now if guard.budget is None else enough_at(guard.budget, flow(retry), now)


def rewarded(guard: Guard, retry: RetrySettings, now: datetime) -> Guard:
    """After a success."""
    if guard.budget is None:
        return guard
    return replace(guard, budget=changed(guard.budget, flow(retry), now, REWARD))


def charged(guard: Guard, retry: RetrySettings, now: datetime) -> Guard:
    """After a retry that failed."""
    return replace(guard, budget=changed(guard.budget, flow(retry), now, -COST))
