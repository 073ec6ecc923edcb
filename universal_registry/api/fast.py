"""The short way: plain requests are answered on the bare connection, everything else is handed over to aiohttp.

A connection begins here and stays as long as its requests are plain (`api/plain.py`), may be heard (`Api.admit`) and
are answered in one piece. The first that is not moves over, with all bytes that it holds and for good; so whatever is
odd, hostile, refused, streamed or long is read and answered by aiohttp alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import format_datetime
from typing import cast

from universal_registry.api.dispatch import Admitted, Api
from universal_registry.api.http import Peer, Request, Response, split_target
from universal_registry.api.listening import ServerLimits
from universal_registry.api.plain import REQUEST_LINE, Fields, fields_of, rendered
from universal_registry.api.sent_answers import SentAnswers, may_be_sent_again
from universal_registry.kernel.errors import RegistryError, TimedOut
from universal_registry.registry.service import Actor

MOST_BODY = 1 << 20
"""Bytes of a body that is read here; more has time for aiohttp."""
MOST_AHEAD = 64 << 10
"""Bytes that a client may send before it has its answer; beyond them its connection is not read."""
PeerOf = Callable[[asyncio.Transport], Peer]


class PlainFront:
    """The connections of one listener that have sent plain requests only. `other` makes the protocol that the rest is
    handed over to, by its first bytes; `peer_of` says who is at the other end."""

    def __init__(
        self, api: Api, limits: ServerLimits, peer_of: PeerOf, other: Callable[[bytes], asyncio.Protocol]
    ) -> None:
        self.api = api
        self.limits = limits
        self.peer_of = peer_of
        self.other = other
        self.connections: set[PlainConnection] = set()
        self.sent = SentAnswers()
        self.closing = False
        self._empty = asyncio.Event()
        self._date = ""
        self._date_until = 0.0

    def __call__(self) -> PlainConnection:
        return PlainConnection(self)

    def date(self, now: float) -> str:
        """The Date header, made once a second; `now` by the loop's clock."""
        if now >= self._date_until:
            moment = self.api.now()
            self._date = format_datetime(moment, usegmt=True)
            self._date_until = now + 1 - moment.microsecond / 1e6
        return self._date

    def gone(self, connection: PlainConnection) -> None:
        """That connection is closed, or not ours any more."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def close_idle(self) -> None:
        """Close each connection as soon as it waits for a request: now, or after its answer."""
        self.closing = True
        for connection in tuple(self.connections):
            connection.close_if_idle()

    async def shutdown(self, grace: float) -> None:
        """Let requests under way end within `grace` seconds, then cut off what is left."""
        self.close_idle()
        self._empty.clear()
        try:
            async with asyncio.timeout(grace):
                while self.connections:
                    await self._empty.wait()
        except TimeoutError:
            tasks = [connection.cut_off() for connection in tuple(self.connections)]
            await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


class PlainConnection(asyncio.Protocol):
    """One connection. It answers one request after the other, in a task each."""

    def __init__(self, front: PlainFront) -> None:
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._peer: Peer
        self._task: asyncio.Task[None] | None = None
        self._lost = False
        self._writing_paused = False
        self._reading_paused = False
        # What came and waits: behind a request under way, or the first part of one, `_needed` bytes long.
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = 0
        # Headers seldom change on a connection: what they say, and who sends them, is found once for the same bytes.
        self._block: bytes | None = None
        self._fields: Fields
        self._caller: Actor | None = None
        self._callers = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- the protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its shape only
        self._peer = self._front.peer_of(self._transport)
        self._front.connections.add(self)
        self._wait(self._front.limits.idle)

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        if self._needed or self._is_busy:
            self._pieces.append(data)
            self._size += len(data)
            if self._needed and self._size >= self._needed:
                self._go_on()
            else:
                self._read_or_not()
        else:
            self._begin(data)

    def pause_writing(self) -> None:
        """As asyncio says: the client does not read its answers, so no other is made."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """As asyncio says."""
        self._writing_paused = False
        if self._task is None and not self._needed:
            self._go_on()

    def connection_lost(self, _: Exception | None) -> None:
        """As asyncio says. A request under way is done to its end: it may have been committed already."""
        self._lost = True
        self._stop_timer()
        if self._task is None:
            self._front.gone(self)

    # --- one request ---------------------------------------------------------------------------------------------

    @property
    def _is_busy(self) -> bool:
        return self._task is not None or self._writing_paused

    def _begin(self, data: bytes) -> None:
        """Begin the request at the beginning of `data`, and keep what is behind it."""
        head_end = data.find(b"\r\n\r\n")
        request = self._read(data, head_end)
        admitted = None if request is None else self._admitted(request)
        if request is None or admitted is None:
            self._hand_over(data)
            return
        end = head_end + 4 + self._fields.length
        rest = len(data) - end
        if rest:
            self._pieces.append(data if rest < 0 else data[end:])
            self._size = len(self._pieces[0])
            self._needed = end if rest < 0 else 0
            self._read_or_not()
        if rest < 0:
            self._wait(self._front.limits.body)
        elif rest or not self._answer_again(request, admitted):
            self._task = self._loop.create_task(self._answer(request, admitted))

    def _read(self, data: bytes, head_end: int) -> Request | None:
        """The plain request at the beginning of `data`, its head ending at `head_end`; None when there is none."""
        limits = self._front.limits
        if not 0 < head_end <= limits.line:
            return None
        line_end = data.find(b"\r\n")
        line = REQUEST_LINE.fullmatch(data, 0, line_end)
        if line is None:
            return None
        block = data[line_end + 2 : head_end]
        if block != self._block:
            fields = fields_of(block, limits.headers)
            if fields is None:
                return None
            self._block, self._fields = block, fields
            self._callers = -1
        method, target = line[1].decode(), line[2].decode()
        query: tuple[tuple[str, str], ...] = ()
        if "?" in target:
            try:
                target, query = split_target(target)
            except RegistryError:
                return None
        headers, length = self._fields
        body = data[head_end + 4 : head_end + 4 + length] if length else b""
        return Request(method=method, path=target, peer=self._peer, query=query, headers=headers, body=body)

    def _admitted(self, request: Request) -> Admitted | None:
        """What `Api.admit` says; None when it refuses, or when the route may stream, wait or take a long body."""
        api = self._front.api
        if self._callers != api.callers:
            self._callers = api.callers
            self._caller = api.caller(request)
        try:
            admitted = api.admit(request, self._caller)
        except RegistryError:
            return None
        route = admitted.match.route
        if route.answer == "ndjson" or self._fields.length > min(route.body_limit, MOST_BODY):
            return None
        return admitted

    def _answer_again(self, request: Request, admitted: Admitted) -> bool:
        """Answer at once as was answered before, if that is what it would come to. Nothing waits behind the request."""
        front, now = self._front, self._loop.time()
        if not may_be_sent_again(request, admitted):
            return False
        answer = front.sent.get(request.path, front.api.state, front.date(now))
        if answer is None:
            return False
        self._transport.write(answer)
        self._deadline = now + front.limits.idle
        if front.closing:
            self._transport.close()
        return True

    async def _answer(self, request: Request, admitted: Admitted) -> None:
        api = self._front.api
        state = api.state if may_be_sent_again(request, admitted) else None
        response = await api.dispatch(request, admitted)
        self._task = None
        if self._lost:
            self._front.gone(self)
            return
        date = self._front.date(self._loop.time())
        answer = self._send(response, date)
        if state is not None and response.status == 200 and state == api.state:
            self._front.sent.keep(request.path, answer, state, date)
        if self._front.closing:
            self._transport.close()
        elif self._pieces and not self._writing_paused:
            self._go_on()

    def _send(self, response: Response, date: str) -> bytes:
        """The bytes that were sent."""
        try:
            answer = rendered(response, date)
        except (TypeError, ValueError) as error:
            answer = rendered(self._front.api.bug(error), date)
        self._transport.write(answer)
        self._deadline = self._loop.time() + self._front.limits.idle
        return answer

    def _go_on(self) -> None:
        """Nothing is under way any more: to what came meanwhile."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = self._needed = 0
        if data:
            self._begin(data)
        self._read_or_not()

    def _read_or_not(self) -> None:
        """Read no more when enough waits already."""
        enough = self._size > MOST_AHEAD and not self._needed
        if enough != self._reading_paused:
            self._reading_paused = enough
            if enough:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _hand_over(self, data: bytes) -> None:
        """From here on the connection is aiohttp's, beginning with these bytes; or closed, if the server stops."""
        if self._front.closing:
            self._transport.close()
            return
        self._stop_timer()
        self._read_or_not()
        other = self._front.other(data)
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(data)
        self._front.gone(self)

    # --- ends ----------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """What is expected now must be there in so many seconds."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._stop_timer()
            self._timer = self._loop.call_at(self._deadline, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._is_busy:
            self._wait(self._front.limits.idle)
        elif now < self._deadline:
            # Answers only move the deadline; the timer follows when it goes off.
            self._timer = self._loop.call_at(self._deadline, self._on_time)
        else:
            if self._needed:
                late = TimedOut(f"the body did not arrive within {self._front.limits.body:g} s")
                response = self._front.api.problem(late)
                closing = Response(status=response.status, headers=(*response.headers, _CLOSE), body=response.body)
                self._send(closing, self._front.date(now))
            self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way."""
        if self._task is None and not self._needed:
            self._transport.close()

    def cut_off(self) -> asyncio.Task[None] | None:
        """Close the connection as it is; the task that was cancelled, if there was one."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task


_CLOSE = ("Connection", "close")
