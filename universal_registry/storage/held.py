"""How long a reader of one state may keep it: while somebody does, SQLite's WAL grows and cannot be folded in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from universal_registry.kernel.errors import StorageUnavailable

IDLE_SECONDS = 60.0
"""Between two reads. A reader that is slow over a network has time for some hundred records."""
MOST_GROWTH = 1 << 30
"""Bytes by which the WAL may grow meanwhile."""
_LOOKS = 4
"""In IDLE_SECONDS."""


class Held:
    """A state that a reader keeps. `let_go` is called once: by `close`, or, between two reads, when it was kept for
    too long. By a timer, since whoever keeps it may be waiting for somebody who never comes back."""

    def __init__(self, wal: Path, let_go: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._wal = wal
        self._let_go: Callable[[], object] | None = let_go
        self._most = _size(wal) + MOST_GROWTH
        self._reading = False
        self._read_at = self._loop.time()
        self._timer = self._loop.call_later(IDLE_SECONDS / _LOOKS, self._look)

    def begin(self) -> None:
        """A read begins. Raises StorageUnavailable when the state was let go."""
        if self._let_go is None:
            raise StorageUnavailable(
                "what was being read is not kept for so long while others write",
                hint="begin again, and read on faster, or select less",
            )
        self._reading = True

    def end(self) -> None:
        """It has ended."""
        self._reading = False
        self._read_at = self._loop.time()

    def _look(self) -> None:
        idle = self._loop.time() - self._read_at
        if not self._reading and (idle >= IDLE_SECONDS or _size(self._wal) > self._most):
            self.close()
        else:
            self._timer = self._loop.call_later(IDLE_SECONDS / _LOOKS, self._look)

    def close(self) -> None:
        """Let it go, if it was not."""
        self._timer.cancel()
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
