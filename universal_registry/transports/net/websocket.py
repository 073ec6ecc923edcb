"""One WebSocket connection from here: text messages both ways. Frames are read and written by `websockets`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from universal_registry.transports.net.connection import HungUp, NotHttp

MOST_MESSAGE = 16 << 20
_AHEAD = 64
PING_SECONDS = 20.0
NORMAL, NO_TEXT, ABNORMAL = 1000, 1003, 1006
_SILENT = logging.getLogger("universal_registry.websocket.client")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Declined(Exception):
    """The far side answered the handshake with something else. `status`, `kind` (its content type) and `body`."""

    def __init__(self, status: int, kind: str, body: bytes, retry_after: str) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.kind = kind
        self.body = body
        self.retry_after = retry_after


class Closed(Exception):
    """The far side has ended it. `code`: why (1006: it never said so)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class WebSocket(asyncio.Protocol):
    """`opened` must be awaited first. One task receives at a time; any may send."""

    def __init__(self, uri: str, headers: Mapping[str, str], most: int = MOST_MESSAGE) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = ClientProtocol(parse_uri(uri), max_size=most, logger=_SILENT)
        self._headers = headers
        self._transport: asyncio.Transport
        self._messages: deque[bytes] = deque()
        self._parts: list[bytes | bytearray | memoryview] = []
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_open = False
        self._over: Exception | None = None
        self._paused = False
        self._pinged = False
        self.on_message: Callable[[bytes], None] | None = None
        """Given each message, instead of `receive`."""
        self.on_end: Callable[[Exception], None] | None = None
        """Told, once, that it is over, and why."""
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def opened(self) -> None:
        """Wait for the far side's consent. Raises Declined, NotHttp, HungUp, OSError."""
        while not self._is_open:
            if self._over is not None:
                raise self._over
            await self._news()

    @property
    def is_usable(self) -> bool:
        """Whether more can be sent."""
        return self._is_open and self._over is None and self._protocol.state is State.OPEN

    def send(self, message: bytes) -> None:
        """Send one message. Raises Closed, OSError when it is over."""
        if self._over is not None:
            raise self._over
        if self._protocol.state is not State.OPEN:
            raise self._closed()
        self._protocol.send_text(message)
        self._flush()

    async def drain(self) -> None:
        """Wait until the far side takes more."""
        while self._writable is not None and self._over is None:
            await asyncio.shield(self._writable)

    async def receive(self, ping: float = PING_SECONDS) -> bytes:
        """The next message. A far side that is silent for so long is asked for a word, and given up after as long
        again. Raises Closed, OSError."""
        asked = False
        while not self._messages:
            if self._over is not None:
                raise self._over
            heard = self._waiter = self._loop.create_future()
            try:
                async with asyncio.timeout(ping):
                    await heard
                asked = False
            except TimeoutError:
                if asked:
                    self.drop()
                    raise ConnectionAbortedError("no answer to a ping") from None
                asked = True
                self._protocol.send_ping(b"")
                self._flush()
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if self._paused and len(self._messages) < _AHEAD and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        return message

    def ping(self) -> bool:
        """Ask the far side for a word; False: it has not given one since the last time."""
        if self._pinged:
            return False
        self._pinged = True
        self._protocol.send_ping(b"")
        self._flush()
        return True

    async def close(self, code: int = NORMAL, seconds: float = 1.0) -> None:
        """End it politely, within so many seconds."""
        if self.is_usable:
            self._protocol.send_close(code)
            self._flush()
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self.lost)
            except TimeoutError:
                pass  # it does not answer: what follows does not ask
        self.drop()

    def drop(self) -> None:
        """End it, with whatever is unsent."""
        if not self.lost.done():
            self._transport.abort()

    # --- of asyncio --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._pinged = False
        self._protocol.receive_data(data)
        self._events()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._events()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._over is None:
            self._end(error if isinstance(error, OSError) else self._ended())
        self.resume_writing()
        if not self.lost.done():
            self.lost.set_result(None)

    # --- of the protocol ---------------------------------------------------------------------------------------------

    def _events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._answered(event)
            elif isinstance(event, Frame):
                self._framed(event)
        if not self._is_open and self._over is None and (failed := self._protocol.handshake_exc) is not None:
            self._end(_meant(failed))
        elif self._is_open and self._over is None and self._protocol.state is not State.OPEN:
            self._end(self._ended())
        self._flush()
        self._wake()

    def _answered(self, response: Response) -> None:
        if response.status_code == 101 and self._protocol.handshake_exc is None:
            self._is_open = True
        elif response.status_code == 101:
            self._end(NotHttp(f"no WebSocket: {self._protocol.handshake_exc}"))
        else:
            headers = response.headers
            kind, after = headers.get("Content-Type", ""), headers.get("Retry-After", "")
            self._end(Declined(response.status_code, kind, bytes(response.body or b""), after))

    def _framed(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._protocol.fail(NO_TEXT, "messages are text")
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._parts.append(frame.data)
            if frame.fin:
                message, self._parts = b"".join(self._parts), []
                if self.on_message is not None:
                    self.on_message(message)
                    return
                self._messages.append(message)
                if len(self._messages) >= _AHEAD and not self._paused:
                    self._paused = True
                    self._transport.pause_reading()

    def _ended(self) -> Exception:
        if not self._is_open:
            failed = self._protocol.handshake_exc
            return HungUp() if failed is None else _meant(failed)
        return self._closed()

    def _closed(self) -> Closed:
        said = self._protocol.close_rcvd
        return Closed(ABNORMAL, "") if said is None else Closed(said.code, said.reason)

    def _end(self, error: Exception) -> None:
        self._over = error
        if self.on_end is not None:
            self.on_end(error)
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _news(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter
        self._waiter = None

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()


def _meant(failed: Exception) -> Exception:
    """Why there was no handshake, in our words."""
    cause = failed.__cause__ or failed
    return HungUp() if isinstance(cause, EOFError) else NotHttp(str(failed))
