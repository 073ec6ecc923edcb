"""A receiver that costs next to nothing: answers every POST with 204, and notes what came when.

Its own raw protocol on uvloop. A body that holds `mark:<digits>` is noted by that number, with CLOCK_MONOTONIC.
GET /reset forgets; GET /dump tells. Run as `python -m bench.sink PORT [MILLISECONDS]`: so long each answer takes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import deque

from bench.machine import HOST

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MARK = re.compile(rb"mark:(\d+)")
_OK = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


class Notes:
    """What came: arrival times in order, the last body's size, how many were signed, and marks. `open`: how many are
    not answered yet, and `most_open` at once; `most_in_second`: how many came within one, at most."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.marks: dict[str, float] = {}
        self.bytes = 0
        self.signed = 0
        self.open = self.most_open = self.most_in_second = 0
        self._second: deque[float] = deque()

    def note(self, head: bytes, body: bytes) -> None:
        now = time.monotonic()
        self.times.append(now)
        self._second.append(now)
        while self._second[0] <= now - 1.0:
            self._second.popleft()
        self.most_in_second = max(self.most_in_second, len(self._second))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self.bytes = len(body)
        self.signed += b"webhook-signature" in head.lower()
        if mark := _MARK.search(body):
            self.marks.setdefault(mark[1].decode(), now)

    def told(self) -> bytes:
        return json.dumps(
            {
                "count": len(self.times),
                "times": [self.times[0], self.times[-1]] if self.times else [],
                "every500": self.times[::500],
                "marks": self.marks,
                "bytes": self.bytes,
                "signed": self.signed,
                "most_open": self.most_open,
                "most_in_second": self.most_in_second,
            }
        ).encode()


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, notes: list[Notes], delay: float) -> None:
        self._notes = notes
        self._delay = delay
        self._buffer = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is none of asyncio's classes

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST"):
            self._notes[0].note(head, body)
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._taken, self._notes[0])
            else:
                self._taken(self._notes[0])
            return
        if head.startswith(b"GET /reset"):
            self._notes[0] = Notes()
        told = self._notes[0].told() if head.startswith(b"GET /dump") else str(len(self._notes[0].times)).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))

    def _taken(self, notes: Notes) -> None:
        notes.open -= 1
        self._transport.write(_OK)


async def _main(port: int, milliseconds: float = 0.0) -> None:
    notes, delay = [Notes()], milliseconds / 1000
    server = await asyncio.get_running_loop().create_server(lambda: Sink(notes, delay), HOST, port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(int(sys.argv[1]), *map(float, sys.argv[2:3])))
