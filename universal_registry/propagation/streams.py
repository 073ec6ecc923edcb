"""What streams carry, as it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

IN, OUT = "in", "out"


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream has carried in one direction, as seen from here. `latency_ms`: from what caused a message to the
    moment when it was sent, on average over the last messages that were stored; None: not known."""

    stream: str
    direction: str
    messages: int
    size: int
    latency_ms: float | None
    last_update: str = ""


class Count(Protocol):
    """Whoever counts: so many messages of so many bytes together, each after so many milliseconds, if that is known."""

    def __call__(
        self, stream: str, direction: str, messages: int, size: int, milliseconds: float | None = None, /
    ) -> None: ...


class StreamStore(Protocol):
    """Where the totals are kept: one row for each stream and direction, and one counter for all messages."""

    async def add_carried(self, carried: Sequence[Carried], at: str) -> None:
        """Add it to the totals, in one commit. Raises StorageUnavailable, with nothing added."""
        ...

    async def carried(self) -> Sequence[Carried]:
        """All totals, by stream and direction."""
        ...
