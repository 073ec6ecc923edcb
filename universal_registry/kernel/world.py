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


class SystemWorld:
    """The real one."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def chance(self) -> float:
        return random.random()

    def new_id(self) -> str:
        return uuid7_hex(time.time_ns() // 1_000_000, os.urandom(10))

    def secret_bytes(self, count: int) -> bytes:
        return os.urandom(count)


def uuid7_hex(unix_ms: int, entropy: bytes) -> str:
    """RFC 9562 version 7 from a time in milliseconds and 10 bytes of entropy."""
    number = int.from_bytes(entropy[:10], "big")
    value = (unix_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (number >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | number & (1 << 62) - 1
    return f"{value:032x}"
