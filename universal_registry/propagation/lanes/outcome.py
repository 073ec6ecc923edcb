"""How one attempt ended. Transports only report; what follows is decided in `settle`."""

from __future__ import annotations

from datetime import timedelta

import msgspec


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """The far side took it (2xx). `answer`: the beginning of what it said."""

    status: int
    milliseconds: float
    answer: str = ""


class Rejected(msgspec.Struct, frozen=True, kw_only=True, tag="rejected"):
    """The payload is at fault (400, 413, 422): a repeat would end the same; says nothing about the target's health."""

    reason: str
    status: int | None
    milliseconds: float


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Anything else: no connection, a timeout, a status that may pass, an address that is refused.

    `reason`: one short line for people, free of secrets and control characters. `retry_after`: the target's own wish.
    `setup`: it never came to an attempt, and cannot until somebody changes the target, a key or a setting.
    """

    reason: str
    status: int | None
    milliseconds: float
    retry_after: timedelta | None = None
    setup: bool = False


Outcome = Accepted | Rejected | Failed
