"""Connections of a driver's pool, each given to whoever has waited longest.

The pool alone lets one who comes just as a connection is given back go before all who wait, and those who wait begin at
the end again: with ten times as many readers as connections, one in a hundred waited for ten turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import asyncpg


class FairPool:
    """At most `size` connections of `pool` are out; nobody waits longer than `patience` seconds for one. One that is
    given back while others wait does not go back to the pool in between: that costs two tasks."""

    def __init__(self, pool: Any, size: int, patience: float) -> None:
        self._pool = pool
        self._patience = patience
        self._free = size
        self._waiting: deque[asyncio.Future[Any]] = deque()

    async def acquire(self) -> Any:
        """A connection, which may have been lost meanwhile. Raises TimeoutError, and what the driver does."""
        if self._free:
            self._free -= 1
            return await self._take()
        turn: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._patience):
                given = await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it came as the waiting ended
                await self._give_back(turn.result())
            raise
        return await self._take() if given is None else given

    async def _take(self) -> Any:
        try:
            return await self._pool.acquire(timeout=self._patience)
        except BaseException:
            self._pass_on_the_place()
            raise

    async def release(self, connection: Any) -> None:
        """Give it back. Raises what the driver does; its place is free all the same."""
        if _is_lost(connection) or not self._passed_on(connection):
            await self._give_back(connection)

    async def _give_back(self, connection: Any) -> None:
        try:
            if connection is not None:
                await self._pool.release(connection)
        finally:
            self._pass_on_the_place()

    def _pass_on_the_place(self) -> None:
        if not self._passed_on(None):
            self._free += 1

    def _passed_on(self, connection: Any) -> bool:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    async def close(self) -> None:
        """Close all connections, when they have come back."""
        await self._pool.close()

    def terminate(self) -> None:
        """End all connections, at once."""
        self._pool.terminate()


def _is_lost(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has noticed before us, and taken it back
        return True
