"""The WebSocket under a stream: whole messages from the client, by `websockets`; frames to it, made elsewhere."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from websockets.frames import Frame as WsFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from universal_registry.api.stream_frames import is_utf8

if TYPE_CHECKING:
    from universal_registry.api.stream import StreamLimits

UNSUPPORTED, NOT_TEXT = 1003, 1007


class StreamSocket(asyncio.Protocol):
    """An open WebSocket. Who inherits has `_work` done when there are messages in `_queue`, or room for more."""

    __slots__ = (
        "_closed_at",
        "_heard",
        "_loop",
        "_lost",
        "_parts",
        "_paused",
        "_pinged",
        "_queue",
        "_reading_paused",
        "_transport",
        "_ws",
    )

    def __init__(self, limits: StreamLimits) -> None:
        from universal_registry.api.stream_handshake import SILENT

        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._ws = Protocol(Side.SERVER, state=State.OPEN, max_size=limits.message, logger=SILENT)
        self._parts: list[bytes | bytearray | memoryview] | None = None
        self._queue: deque[bytes] | None = None
        self._paused = self._reading_paused = self._lost = self._pinged = False
        self._closed_at = 0.0
        self._heard = self._loop.time()

    def _came(self, size: int) -> None:
        """A message of that size has come, and is in the queue."""
        raise NotImplementedError

    def _work(self) -> None:
        """Do what is in the queue, as far as may be."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        self._heard = self._loop.time()
        self._pinged = False
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            self._take(cast(WsFrame, event))
        self._flush()
        self._work()

    def eof_received(self) -> None:
        """As asyncio says: the connection is closed then."""
        self._ws.receive_eof()
        self._flush()

    @property
    def _is_open(self) -> bool:
        return not self._lost and not self._closed_at

    def _take(self, frame: WsFrame) -> None:
        """A frame that is in order by itself. Pings and closes have been answered already."""
        if not self._is_open or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is Opcode.BINARY:
            self._fail(UNSUPPORTED, "messages are text")
            return
        if self._parts is None:
            self._parts = []
        self._parts.append(frame.data)
        if not frame.fin:
            return
        data, self._parts = b"".join(self._parts), None
        if not is_utf8(data):
            self._fail(NOT_TEXT, "the message is not UTF-8")
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(data)
        self._came(len(data))

    def _read_or_not(self) -> None:
        enough = self._paused or bool(self._queue)
        if enough != self._reading_paused and not self._lost and not self._transport.is_closing():
            self._reading_paused = enough
            if enough:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def drop(self) -> None:
        """Close it as it is."""
        self._transport.abort()

    def _close(self, code: int, reason: str) -> None:
        if self._is_open:
            self._ws.send_close(code, reason)
            self._flush()

    def _fail(self, code: int, reason: str) -> None:
        self._ws.fail(code, reason)
        self._flush()

    def _flush(self) -> None:
        """Send what the protocol has to say. After its last word the client has a moment to read it."""
        for data in self._ws.data_to_send():
            if self._lost or self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
        if self._ws.state is not State.OPEN and not self._closed_at:
            self._closed_at = self._loop.time()
            self._queue = None
            self._read_or_not()
