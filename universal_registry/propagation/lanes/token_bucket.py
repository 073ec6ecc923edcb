"""A token bucket: what is left in it, and when there is enough. Pure; it needs no timer, only the time."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

ENOUGH = 1.0
_ROUNDING = 1e-9


class Bucket(msgspec.Struct, frozen=True):
    """`tokens` in it at the moment `at`; from then on it fills at the rate of its `Flow`."""

    tokens: float
    at: datetime


class Flow(msgspec.Struct, frozen=True):
    """How a bucket fills: so many tokens each second, never above `most`."""

    per_second: float
    most: float


def level(bucket: Bucket | None, flow: Flow, now: datetime) -> float:
    """What is in it now; None: a bucket nobody has drawn from, which is full."""
    if bucket is None:
        return flow.most
    passed = max((now - bucket.at).total_seconds(), 0.0)
    return min(bucket.tokens + passed * flow.per_second, flow.most)


def changed(bucket: Bucket | None, flow: Flow, now: datetime, by: float) -> Bucket | None:
    """With tokens taken out (`by` below 0) or put in. Never below nothing; None when it is full."""
    tokens = max(level(bucket, flow, now) + by, 0.0)
    return Bucket(tokens, now) if tokens < flow.most else None


def whole(bucket: Bucket | None, flow: Flow, now: datetime) -> int:
    """How many whole tokens are in it."""
    return int(level(bucket, flow, now) + _ROUNDING)


def has_enough(bucket: Bucket | None, flow: Flow, now: datetime, wanted: float = ENOUGH) -> bool:
    """Whether so much is in it."""
    return level(bucket, flow, now) >= wanted - _ROUNDING


def enough_at(bucket: Bucket | None, flow: Flow, now: datetime) -> datetime:
    """When there will be a whole token; `now` when there is one."""
    missing = ENOUGH - level(bucket, flow, now)
    return now + timedelta(seconds=max(missing, 0.0) / flow.per_second) if missing > _ROUNDING else now


def rated(per_second: float) -> Flow:
    """The flow under which in no second (half open) more than `per_second` tokens, rounded up, can be taken, however
    they bunch.

    What may be taken at once (a twentieth of a second's worth, at least one) is taken off what comes in a second.
    """
    burst = max(1.0, per_second / 20)
    return Flow(per_second=per_second - (burst - 1.0), most=burst)
