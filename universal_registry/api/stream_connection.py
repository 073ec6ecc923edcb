"""One open stream: messages of the client are answered, and what it subscribed to is sent, both at once.

Frames from the client are read by `websockets`; frames to it are made once for all who are told the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
import orjson

from universal_registry.api.hand_out import Made, Shared
from universal_registry.api.http import Request, problem_of, whole_body
from universal_registry.api.stream_frames import Subscription, framed, takes_time
from universal_registry.api.stream_messages import (
    Bookmark,
    Id,
    Push,
    Subscribe,
    Unsubscribe,
    id_in,
    pushed,
    read_message,
)
from universal_registry.api.stream_socket import StreamSocket
from universal_registry.api.watcher import Place, Policy
from universal_registry.kernel.errors import Conflict, NotFound, RegistryError, TooLarge
from universal_registry.propagation.streams import IN, OUT
from universal_registry.registry.service import Actor
from universal_registry.registry.watch import Frame, FrameKind

if TYPE_CHECKING:
    from universal_registry.api.stream import StreamFront

GOING_AWAY, POLICY = 1001, 1008
IDLE, NO_PONG = 4000, 4001
_TAKE = 128 << 10


class StreamConnection(StreamSocket):
    """`name`: as what it is counted."""

    __slots__ = (
        "_asked", "_front", "_in", "_last", "_only", "_out", "_said", "_subscriptions", "_tasks", "actor", "name",
    )  # fmt: skip

    def __init__(self, front: StreamFront, asked: Request, actor: Actor, name: str) -> None:
        super().__init__(front.limits)
        self.actor = actor
        self.name = name
        self._front = front
        self._asked = asked
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}
        self._in, self._out = front.traffic.flow(name, IN), front.traffic.flow(name, OUT)
        self._subscriptions: dict[Id, Subscription] = {}
        self._only: Subscription | None = None
        """The subscription, if there is just one."""
        self._said = self._heard

    # --- of asyncio --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._front.limits.waiting)
        self._front.opened(self)

    def pause_writing(self) -> None:
        """As asyncio says: the client does not read, so nothing is made for it, and nothing is heard of it."""
        self._paused = True
        self._read_or_not()

    def resume_writing(self) -> None:
        """As asyncio says."""
        self._paused = False
        self.pump()
        self._work()

    def connection_lost(self, _: Exception | None) -> None:
        """As asyncio says. Requests under way are done to their end: they may have been committed already."""
        self._lost = True
        self._queue = None
        self._ws.parser.close()  # which holds it, and is held by it
        for subscription in tuple(self._subscriptions.values()):
            self._drop(subscription)
        self._front.gone(self)

    # --- what the client says ----------------------------------------------------------------------------------------

    def _came(self, size: int) -> None:
        self._said = self._heard
        self._in.count(1, size)

    def _work(self) -> None:
        """Begin what waits, as much of it as may be under way."""
        while self._queue and self._is_open and not self._paused and len(self._tasks) < self._front.limits.under_way:
            self._begin(self._queue.popleft())
        self._queue = self._queue or None  # who has said all that he will keeps no room for more
        self._read_or_not()

    def _begin(self, data: bytes) -> None:
        try:
            match read_message(data):
                case Subscribe() as said:
                    self._spawn(said.id, self._subscribe(said))
                case Unsubscribe() as said:
                    self._drop(self._named(said.id))
                    self._answer(said.id, b'{"type":"unsubscribed"}')
                case Bookmark() as said:
                    subscription = self._named(said.id)
                    self._send(subscription.message(subscription.watcher.bookmark()))
                case said:
                    request = pushed(said, self._asked)
                    before = self._last.get(request.path)
                    task = self._spawn(said.id, self._push(said, request, before))
                    if before is not None or self._front.in_turn or takes_time(said):
                        self._last[request.path] = task
        except RegistryError as error:
            self._problem(id_in(data), error)

    def _named(self, name: Id) -> Subscription:
        found = self._subscriptions.get(name)
        if found is None:
            raise NotFound(f"there is no subscription {str(name)[:80]!r} here", hint="subscribe first")
        return found

    def _spawn(self, name: Id, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(self._done(name, work))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._last.clear()
        self._work()

    async def _done(self, name: Id, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except RegistryError as error:
            self._problem(name, error)
        except Exception as error:  # noqa: BLE001 - as in Api.dispatch: a bug becomes an answer, and is reported
            response = self._front.api.bug(error)
            assert isinstance(response.body, bytes)
            self._answer(name, b'{"type":"problem","problem":%b}' % response.body)

    async def _push(self, said: Push, request: Request, before: asyncio.Task[None] | None) -> None:
        """The answer to a request. Those about one record are answered in the order in which they came."""
        if before is not None and not before.done():
            await asyncio.wait([before])
        began = self._loop.time()
        response = await self._front.api.dispatch(request)
        body = await whole_body(response)
        word = b"problem" if response.status >= 400 else b"body"
        kind = b"problem" if response.status >= 400 else b"answer"
        parts = b'{"type":"%b","status":%d,"%b":%b' % (kind, response.status, word, body or b"null")
        if revision := response.header("registry-revision"):
            parts += b',"revision":%b' % revision.encode()
        if response.header("idempotency-replayed"):
            parts += b',"replayed":true'
        self._answer(said.id, parts + b"}", (self._loop.time() - began) * 1000)

    # --- what it is told ---------------------------------------------------------------------------------------------

    async def _subscribe(self, said: Subscribe) -> None:
        front = self._front
        if said.id in self._subscriptions:
            raise Conflict(f"there is a subscription {str(said.id)[:80]!r} already", hint="give each an id of its own")
        if len(self._subscriptions) >= front.limits.subscriptions:
            raise TooLarge(f"there are {len(self._subscriptions)} subscriptions on this stream", hint="open another")
        request = msgspec.structs.replace(self._asked, query=said.query)
        asked = await front.asked(request)
        watcher = await front.hub.open(asked)
        if not self._is_open or said.id in self._subscriptions:
            await watcher.close()
            return
        subscription = Subscription(said, watcher, asked.policy, asked.most_lag, self._loop.time())
        self._subscriptions[said.id] = subscription
        self._only = subscription if len(self._subscriptions) == 1 else None
        front.watching.add(self)
        self._answer(said.id, b'{"type":"subscribed","cursor":"%b"}' % str(watcher.cursor).encode())
        await front.hub.advance()  # nobody may have read on since the last watcher left
        self.pump()

    def pump(self) -> None:
        """Send what is at hand for it, unless it does not read."""
        for subscription in tuple(self._subscriptions.values()):
            self._pump(subscription)

    def tell(self, made: Made) -> None:
        """As Reader: as `pump`, with what was made already for others that are told the same."""
        only = self._only
        if only is None or self._paused or self._lost or self._closed_at or only.catching_up:
            self.pump()
            return
        # From here on as few steps as may be: there may be thousands of connections, for each change.
        watcher = only.watcher
        place = watcher.place
        if place is None:
            self._pump(only)
        elif (found := made.get((only.wire, place))) is not None:
            watcher.follow(found.leader, found.events)
            data = found.data
            self._transport.write(data)
            only.marked = found.at
            flow = self._out
            flow.messages += found.messages
            flow.size += len(data)
        else:
            self._lead(only, place, made)

    def _lead(self, subscription: Subscription, place: Place, made: Made) -> None:
        watcher, frames = subscription.watcher, self._taken(subscription) or []
        data = self._tell(subscription, frames)
        if frames and not watcher.is_over and watcher.is_at_end:
            events = sum(frame.events for frame in frames)
            made[subscription.wire, place] = Shared(watcher.stand, events, len(frames), data, subscription.marked)
        else:
            self._pump(subscription)

    def _taken(self, subscription: Subscription) -> list[Frame] | None:
        try:
            return subscription.watcher.take(_TAKE)
        except RegistryError as error:  # of what it asks for, so that others are told
            return [subscription.watcher.broken(error.message)]

    def _pump(self, subscription: Subscription) -> None:
        watcher = subscription.watcher
        while self._is_open and not self._paused and not subscription.catching_up:
            before = watcher.cursor
            frames = self._taken(subscription)
            if frames is None:
                subscription.catching_up = True
                self._spawn(subscription.id, self._catch_up(subscription))
            elif frames:
                self._tell(subscription, frames)
            if frames is None or watcher.is_over or watcher.cursor is before or watcher.is_at_end:
                return

    async def _catch_up(self, subscription: Subscription) -> None:
        """From behind the ring to it, or through a list."""
        watcher = subscription.watcher
        try:
            while self._is_open and not self._paused and not watcher.is_over:
                frames = watcher.take(_TAKE)
                if frames is None:
                    frames = await watcher.next(wait=0.0, most_bytes=_TAKE)
                elif not frames and watcher.is_at_end:
                    break
                else:
                    await asyncio.sleep(0)
                self._tell(subscription, frames)
        except RegistryError as error:
            self._tell(subscription, [watcher.broken(error.message)])
        finally:
            subscription.catching_up = False
            if self._subscriptions.get(subscription.id) is not subscription:
                await watcher.close()
        self._pump(subscription)

    def _tell(self, subscription: Subscription, frames: Sequence[Frame]) -> bytes:
        if not frames or not self._is_open:
            return b""
        wired = [subscription.wired(frame) for frame in frames]
        data = wired[0] if len(wired) == 1 else b"".join(wired)
        self._write(subscription, data, len(wired))
        if frames[-1].kind is FrameKind.END:
            self._drop(subscription)
        return data

    def _write(self, subscription: Subscription, data: bytes, count: int) -> None:
        self._transport.write(data)
        subscription.marked = self._loop.time()
        self._out.count(count, len(data))

    def _drop(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.id, None)
        self._only = next(iter(self._subscriptions.values())) if len(self._subscriptions) == 1 else None
        if not self._subscriptions:
            self._front.watching.discard(self)
        subscription.watcher.is_over = True
        if not subscription.catching_up:  # else that closes it
            self._spawn(subscription.id, subscription.watcher.close())

    def _answer(self, name: Id | None, message: bytes, milliseconds: float | None = None) -> None:
        self._send(b'{"id":%b,%b' % (orjson.dumps(name), message[1:]), milliseconds)

    def _problem(self, name: Id | None, error: RegistryError) -> None:
        trace = self._front.api.trace_id()
        told = orjson.dumps(msgspec.to_builtins(problem_of(error, trace), enc_hook=str), default=str)
        self._answer(name, b'{"type":"problem","status":%d,"problem":%b}' % (error.status, told))

    def _send(self, message: bytes, milliseconds: float | None = None) -> None:
        if self._is_open:
            self._transport.write(framed(message))
            self._out.count(1, len(message), milliseconds)

    # --- its life ----------------------------------------------------------------------------------------------------

    def look_after(self, now: float, *, callers_changed: bool) -> None:
        """Once a second: who is silent is asked for a word, who has nothing to do or may not be here is sent away."""
        limits = self._front.limits
        if self._closed_at:
            if now - self._closed_at > limits.closing:
                self._transport.abort()
            return
        if callers_changed and not self._front.api.still(self._asked, self.actor):
            self._close(POLICY, "the token is not valid any more")
        elif self._pinged and now - self._heard > limits.ping + limits.pong:
            self._fail(NO_PONG, "no answer to a ping")
        elif not self._subscriptions and not self._tasks and now - self._said > limits.idle:
            self._close(IDLE, "nothing is subscribed to, and nothing was said")
        elif not self._pinged and now - self._heard > limits.ping:
            self._pinged = True
            self._ws.send_ping(b"")
            self._flush()
        for subscription in tuple(self._subscriptions.values()):
            self._mark(subscription, now)

    def _mark(self, subscription: Subscription, now: float) -> None:
        """Where a quiet subscription stands; and the end of one that may not fall so far behind."""
        watcher = subscription.watcher
        if self._paused:
            if subscription.policy is Policy.DROP and watcher.lag > subscription.lag and not subscription.catching_up:
                self._tell(subscription, watcher.take(_TAKE) or [])
        elif now - subscription.marked >= self._front.limits.bookmark and not subscription.catching_up:
            self._tell(subscription, [watcher.bookmark()])

    def end(self) -> None:
        """The server stops: say where to go on, and close."""
        self._paused = False  # the little that is said now may wait with the rest
        self.pump()
        self._close(GOING_AWAY, "the server stops")

    async def ended(self) -> None:
        """When nothing of it is under way any more."""
        if self._tasks:
            await asyncio.wait(self._tasks)
