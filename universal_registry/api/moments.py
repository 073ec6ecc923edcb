"""Times in requests: a moment, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.registry.words import shown

_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def span(text: str) -> timedelta:
    """A length of time as people write it: `90d`, `12h`, `30m`. Raises Invalid."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise Invalid(f"{shown(text)} is no length of time", hint="a number and one of s m h d w, such as 90d")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def past_moment(text: str, now: datetime, name: str) -> datetime | None:
    """The moment that a parameter names: a time, in UTC where it has no zone, or how long before now. None where it is
    empty. Raises UsageError."""
    if not text:
        return None
    try:
        moment = now - span(text) if _SPAN.fullmatch(text) else datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "such as 2026-01-31T12:00:00Z, 2026-01-31, or 24h for the last day"
        raise UsageError(f"{name} {shown(text)} is no time", hint=hint) from None
