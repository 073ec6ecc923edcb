"""A lean HTTP/1.1 client for one thing: POST a body, read one answer. Connections are kept, one request at a time each.

It follows no redirect, knows no proxy and no cookie, inflates nothing, and repeats nothing: whether a request may be
sent again is not for a client to say.
"""

from __future__ import annotations

import asyncio

from universal_registry.transports.net.connection import Connection, Exchange, Stage
from universal_registry.transports.net.names import Resolve
from universal_registry.transports.net.way import Way, addresses_of

# Shorter than the idle time of common servers (5 s), so that we seldom write to one that is just hanging up.
KEEP_ALIVE_SECONDS = 4.0
# What a name led to so long ago is asked again, although connections there are kept.
VOUCHED_SECONDS = 5.0
MOST_KEPT_ORIGINS = 256


class Poster:
    """Sends requests, and keeps the connections. Used within one loop, until `close`.

    How many requests run at once is the caller's to limit.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._origins: dict[object, _Origin] = {}
        self._connections: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def post(self, way: Way, head: str, body: bytes, exchange: Exchange, seconds: float) -> None:
        """Send one request, and read the answer into `exchange`. However it ends, a connection on which anything of
        this exchange might still come is dropped.

        `head`: request line and header lines, each with its CRLF. Raises TimeoutError after so many seconds,
        AddressRefused, OSError (Unresolved and ssl.SSLError are some), NotHttp, HungUp, BrokeOff, Unfit.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + seconds
        origin, kept = self._origin(way)
        origin.users += 1
        try:
            connection = origin.take(now) if now < origin.vouched_until else None
            if connection is None:
                connection = await self._connected(origin, exchange, deadline)
            exchange.stage = Stage.ANSWERING
            lines = f"{head}\r\n" if kept else f"{head}connection: close\r\n\r\n"
            if await connection.ask(lines.encode("latin-1") + body, exchange, deadline) and kept:
                connection.rests_until = loop.time() + KEEP_ALIVE_SECONDS
                origin.idle.append(connection)
            else:
                connection.drop()
        finally:
            origin.users -= 1
            if self._sweeper is None:
                self._sweeper = loop.call_later(KEEP_ALIVE_SECONDS, self._sweep, loop)

    async def close(self) -> None:
        """Drop all connections. It may be used again."""
        self._origins.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in self._connections:
            connection.drop()
        if self._connections:
            await asyncio.wait([connection.lost for connection in self._connections])

    def _origin(self, way: Way) -> tuple[_Origin, bool]:
        """Where connections that way are kept. Only so many are, for the sake of file handles: False for one more."""
        origin = self._origins.get(way.key)
        if origin is not None:
            return origin, True
        origin = _Origin(way)
        if len(self._origins) >= MOST_KEPT_ORIGINS:
            return origin, False
        self._origins[way.key] = origin
        return origin, True

    async def _connected(self, origin: _Origin, exchange: Exchange, deadline: float) -> Connection:
        """A new connection; or one that is kept, and the name still leads to where that one is."""
        way, loop = origin.way, asyncio.get_running_loop()
        async with asyncio.timeout_at(deadline):
            exchange.stage = Stage.RESOLVING
            origin.addresses = await addresses_of(way.url, way.policy, self._resolve)
            origin.vouched_until = loop.time() + VOUCHED_SECONDS
            if (kept := origin.take(loop.time())) is not None:
                return kept
            exchange.stage = Stage.CONNECTING
            connection, address = await way.connect(origin.addresses, self._made, deadline)
            connection.address = address
            return connection

    def _made(self) -> Connection:
        return Connection(self._connections)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Drop what rested too long."""
        now = loop.time()
        for key, origin in list(self._origins.items()):
            origin.sweep(now)
            if not origin.idle and not origin.users:
                del self._origins[key]
        self._sweeper = loop.call_later(KEEP_ALIVE_SECONDS, self._sweep, loop) if self._origins else None


class _Origin:
    """The connections that are kept to one place under one policy. `addresses`: what it led to when last asked."""

    __slots__ = ("addresses", "idle", "users", "vouched_until", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self.idle: list[Connection] = []
        self.users = 0
        self.addresses: tuple[str, ...] = ()
        self.vouched_until = float("-inf")

    def take(self, now: float) -> Connection | None:
        """The connection that has rested least, of those that are still good."""
        while self.idle:
            connection = self.idle.pop()
            if now < connection.rests_until and connection.address in self.addresses:
                return connection
            connection.drop()
        return None

    def sweep(self, now: float) -> None:
        idle, self.idle = self.idle, []
        for connection in idle:
            if now < connection.rests_until:
                self.idle.append(connection)
            else:
                connection.drop()
