"""The bytes of a connection to a NATS server: opened by `Way` to a checked address, and never in clear where TLS is
asked for. The protocol on it is the library's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nats.aio.transport import Transport

from universal_registry.transports.net.way import Way


class Unwilling(Exception):
    """What the server asks for is not what the URL says."""


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream that says what it runs on."""

    def __init__(self, limit: int) -> None:
        self.reader = asyncio.StreamReader(limit=limit)
        super().__init__(self.reader)
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # uvloop's is none of asyncio's classes
        super().connection_made(transport)


class Wire(Transport):
    """What the library reads and writes, instead of a connection of its own making. For one connection.

    `way.tls`: None for cleartext, which is how every connection to NATS begins. `deadline`: by the loop's clock.
    """

    def __init__(self, way: Way, addresses: Sequence[str], deadline: float) -> None:
        self._way, self._addresses, self._deadline = way, addresses, deadline
        self._plain = Way(way.url, way.policy, None)
        self._encrypted = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._clear: asyncio.StreamWriter | None = None
        self.address = ""

    @property
    def is_open(self) -> bool:
        """Whether more can be written."""
        return self._writer is not None and not self._writer.is_closing() and not self._reader.at_eof()

    def drop(self) -> None:
        """Close it, with whatever is unsent: closing politely would wait for a peer that does not read."""
        if self._writer is not None:
            self._writer.transport.abort()

    # --- of the library ---------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return True

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002 - where to is known
        """To the first of the addresses that takes it, each within its share of the time. As `Way.connect`."""
        found, self.address = await self._plain.connect(self._addresses, lambda: _Protocol(buffer_size), self._deadline)
        self._reader = found.reader
        self._writer = asyncio.StreamWriter(found.transport, found, found.reader, asyncio.get_running_loop())

    async def connect_tls(self, uri: Any, ssl_context: Any, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002
        """Go on in TLS, which the server asks for. Raises Unwilling when the URL does not, ssl.SSLError, OSError."""
        assert self._writer is not None
        if self._way.tls is None:
            raise Unwilling("it asks for TLS: use tls:// instead of nats://")
        loop, protocol = asyncio.get_running_loop(), _Protocol(buffer_size)
        # What the clear stream has read is forgotten: nothing of it is taken for what comes encrypted. The stream is
        # kept, because one that nobody holds closes its connection.
        self._clear = self._writer
        under = await loop.start_tls(self._clear.transport, protocol, self._way.tls, server_hostname=self._way.url.host)
        assert under is not None
        protocol.connection_made(under)
        self._reader = protocol.reader
        self._writer = asyncio.StreamWriter(under, protocol, protocol.reader, loop)
        self._encrypted = True

    def write(self, payload: bytes) -> None:
        """Raises Unwilling for what would go in clear and must not: the first that is written holds the password."""
        assert self._writer is not None
        if self._way.tls is not None and not self._encrypted:
            raise Unwilling("it does not ask for TLS, and tls:// is never sent in clear")
        self._writer.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        self.write(b"".join(payload))

    async def read(self, buffer_size: int) -> bytes:
        return await self._reader.read(buffer_size)

    async def readline(self) -> bytes:
        return await self._reader.readline()

    async def drain(self) -> None:
        """Waits for nothing: whoever publishes waits for the stream's answer, and so is limited by the engine; and the
        library drains before it closes, which a peer that reads no more would then put off for ever."""

    async def wait_closed(self) -> None:
        """Nothing to wait for: `close` is at once."""

    def close(self) -> None:
        self.drop()

    def at_eof(self) -> bool:
        return self._writer is None or self._reader.at_eof()
