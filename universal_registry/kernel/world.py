"""The one door for time, chance and ids.

Everything that depends on them takes a `World`, so that tests and the simulator can hold the door.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class World(Protocol):
    """What the outside world supplies."""

    def now(self) -> datetime:
        """Wall clock, aware, UTC. May step backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; its origin means nothing."""
        ...

    def chance(self) -> float:
        """A uniform number in [0, 1), for jitter. Never for secrets."""
        ...

    def new_id(self) -> str:
        """A UUIDv7 as 32 lowercase hex digits: unique, and sorting by time of creation."""
        ...

    def secret_bytes(self, count: int) -> bytes:
        """`count` bytes fit for keys and tokens."""
        ...


class _Pool:
    """Random bytes, asked of the kernel in one go: for each id alone that costs as much as the rest, and gives up the
    interpreter's lock meanwhile. A forked child starts with none. Not for secrets."""

    SIZE = 4096

    def __init__(self) -> None:
        self._bytes, self._used = b"", self.SIZE
        os.register_at_fork(after_in_child=self.forget)

    def take(self, count: int) -> bytes:
        end = self._used + count
        if end > self.SIZE:
            self._bytes, end = os.urandom(self.SIZE), count
        self._used = end
        return self._bytes[end - count : end]

    def forget(self) -> None:
        self._bytes, self._used = b"", self.SIZE


_pool = _Pool()


class SystemWorld:
    """The real one."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def chance(self) -> float:
        return random.random()

    def new_id(self) -> str:
        return uuid7_hex(time.time_ns() // 1_000_000, _pool.take(10))

    def secret_bytes(self, count: int) -> bytes:
        return os.urandom(count)


def utc_text(moment: datetime) -> str:
    """A time as it is stored: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ids_from(first: str, count: int) -> list[str]:
    """So many ids: `first`, which was just drawn, and others of its moment (RFC 9562, 6.2, method 2). To draw each
    costs six times as much."""
    number = int(first, 16)
    stem, low = number & ~_62_BITS, number & _62_BITS
    return [f"{stem | low + (at << _STEP) & _62_BITS:032x}" for at in range(count)]


_62_BITS = (1 << 62) - 1
_STEP = 40
"""The bits that one id differs by from the next: such steps do not meet those of worlds that count their ids."""
_FIXED = 0x7 << 76 | 0b10 << 62
"""The bits of the version and of the variant."""


def uuid7_hex(unix_ms: int, entropy: bytes) -> str:
    """RFC 9562 version 7 from a time in milliseconds and 10 bytes of entropy."""
    number = int.from_bytes(entropy[:10], "big")
    return f"{(unix_ms & (1 << 48) - 1) << 80 | _FIXED | (number >> 62 & 0xFFF) << 64 | number & _62_BITS:032x}"
