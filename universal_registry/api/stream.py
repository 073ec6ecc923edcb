"""Streams: the WebSocket connections of this process, and what moves them.

`pump` is called after every commit, and once a second in any case; it fills the ring of the watch hub and hands each
connection what is new for it. A connection that does not read is passed over: its watchers stay at their cursors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from universal_registry.api.dispatch import Api
from universal_registry.api.hand_out import hand_out
from universal_registry.api.handlers_watch import asked_of
from universal_registry.api.http import Peer, Request
from universal_registry.api.watcher import Asked, Start
from universal_registry.kernel.errors import Forbidden, NotFound, ShuttingDown, TooMany, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key, check_name
from universal_registry.kernel.settings import Settings
from universal_registry.observe.streams import Traffic
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import shown

if TYPE_CHECKING:
    from universal_registry.api.stream_connection import StreamConnection
    from universal_registry.api.stream_handshake import Handshake

PATH = "/v1/stream"
_LINES = (b"GET /v1/stream ", b"GET /v1/stream?")
KIND = "endpoint"
SWEEP_SECONDS = 1.0
_AT_A_TIME = 16
"""Batches of the log that are handed out before the second's look after everybody is due again."""
_MOST_KNOWN = 1000
PeerOf = Callable[[asyncio.Transport], Peer]


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`message`: bytes of a message from a client. `under_way`: requests of one connection that are answered at once;
    beyond them it is not read. `subscriptions`: of one connection. `waiting`: bytes that may wait to be sent to it
    before its watchers stand still. Seconds: `ping`, without a word from the client, before it is asked for one;
    `pong`, for its answer; `idle`, without subscription and message; `closing`, for its part of a close."""

    message: int = 1 << 20
    under_way: int = 64
    subscriptions: int = 64
    waiting: int = 128 << 10
    ping: float = 20.0
    pong: float = 20.0
    idle: float = 300.0
    closing: float = 5.0
    bookmark: float = 10.0


class StreamFront:
    """All connections. `most`: how many there may be; `origins`: sites whose pages may connect."""

    def __init__(
        self,
        api: Api,
        service: RegistryService,
        traffic: Traffic,
        settings: Settings,
        *,
        limits: StreamLimits = StreamLimits(),  # noqa: B008
    ) -> None:
        self.api = api
        self.hub = api.hub
        self.traffic = traffic
        self.most = 0
        self.origins: frozenset[str] = frozenset()
        self.limits = limits
        self.closing = False
        self.apply(settings)
        self.handshakes: set[Handshake] = set()
        self.connections: set[StreamConnection] = set()
        self.watching: set[StreamConnection] = set()
        self.in_turn = settings.database is not None
        """Whether requests about one thing must wait for each other: where looking something up takes its time, they
        would overtake each other."""
        self._service = service
        self._swept = 0.0
        self._asked: dict[tuple[tuple[str, str], ...], Asked] = {}
        self._known: dict[tuple[str, str, Peer], tuple[Request, Actor]] = {}
        self._callers = api.callers
        self._empty = asyncio.Event()
        self.hub.on_advance(self._advanced)

    def apply(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self.most = settings.max_streams
        self.origins = frozenset(settings.stream_origins.split(",")) - {""}

    # --- connections come --------------------------------------------------------------------------------------------

    def wants(self, data: bytes) -> bool:
        """Whether a connection that begins so may be a stream."""
        return data.startswith(_LINES) or any(line.startswith(data) for line in _LINES)

    def accept(
        self, peer_of: PeerOf, head_limit: int, seconds: float, other: Callable[[], asyncio.Protocol]
    ) -> Handshake:
        """The protocol of a new one. `other` makes the one for what turns out to be something else."""
        from universal_registry.api.stream_handshake import Handshake

        return Handshake(self, peer_of, head_limit, seconds, other)

    def check(self, asked: Request) -> None:
        """Raises what a handshake is refused with: a page of another site, too many connections, the end."""
        origin = asked.header("origin").lower()
        if origin and origin.partition("://")[2] != asked.header("host").lower() and origin not in self.origins:
            hint = "REGISTRY_STREAM_ORIGINS lists the sites that may"
            raise Forbidden(f"pages of {shown(origin)} may not open a stream", hint=hint)
        if self.closing:
            raise ShuttingDown("the server stops")
        if len(self.connections) >= self.most:
            raise TooMany(f"there are {self.most} streams already", hint="REGISTRY_MAX_STREAMS allows more")

    async def name_of(self, asked: Request, actor: Actor) -> str:
        """As what the connection is counted: the stream that it names, or its caller. Raises NotFound."""
        for name, _ in asked.query:
            if name != "stream":
                raise UsageError(f"unknown query parameter {shown(name)}", hint="it takes: stream")
        named = asked.value("stream")
        if not named:
            return actor.name
        await self.require(named)
        return named

    async def require(self, stream: str) -> Key:
        """The record of a stream. Raises NotFound, Invalid."""
        key = Key(KIND, DEFAULT_NAMESPACE, check_name(stream))
        if (await self._service.records.look(key)).record is None:
            raise NotFound(f"there is no stream {shown(stream)}", hint=f"ureg enable-stream {stream} websocket")
        return key

    async def asked(self, request: Request) -> Asked:
        """What a subscription wants to watch; the same object for the same words, of which there may be thousands."""
        known = self._asked.get(request.query)
        if known is None:
            known = await asked_of(self.api.context, request)
            if isinstance(known.start, Start):
                if len(self._asked) >= _MOST_KNOWN:
                    self._asked.clear()
                self._asked[request.query] = known
        return known

    def caller(self, asked: Request, actor: Actor) -> tuple[Request, Actor]:
        """Who opened a stream, for as long as it is open: only what says so, and the same object for the same."""
        said = asked.header("host"), asked.header("authorization"), asked.peer
        known = self._known.get(said)
        if known is None or known[1] != actor:
            who = {each: asked.headers[each] for each in ("host", "authorization") if each in asked.headers}
            kept = Request(method=asked.method, path=asked.path, peer=asked.peer, headers=who)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[said] = (kept, actor)
        return known

    def opened(self, connection: StreamConnection) -> None:
        """It has come."""
        self.connections.add(connection)
        self.traffic.opened(connection.name)

    def gone(self, connection: StreamConnection) -> None:
        """It is closed."""
        self.watching.discard(connection)
        if connection in self.connections:
            self.connections.discard(connection)
            self.traffic.closed(connection.name)
        if not self.connections:
            self._empty.set()

    # --- and are moved -----------------------------------------------------------------------------------------------

    @property
    def is_behind(self) -> bool:
        """As runner.ports.Streams."""
        return self.hub.is_watched and not self.hub.is_current

    async def pump(self) -> None:
        """Hand out what the log has grown by otherwise than by the writer of this process, and once a second look after
        everybody. Raises StorageUnavailable."""
        now = asyncio.get_running_loop().time()
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            self._sweep(now)
        if self.hub.is_watched:
            for _ in range(_AT_A_TIME):
                await self.hub.advance()
                if self.hub.is_current:
                    break

    def _advanced(self) -> None:
        if self.watching:
            hand_out(self.watching)

    def _sweep(self, now: float) -> None:
        changed, self._callers = self._callers != self.api.callers, self.api.callers
        for connection in tuple(self.connections):
            connection.look_after(now, callers_changed=changed)

    async def store_traffic(self) -> None:
        """As runner.ports.Streams."""
        await self.traffic.store()

    async def shutdown(self, grace: float) -> None:
        """Tell everybody where to go on, and close; cut off after `grace` seconds."""
        self.closing = True
        for handshake in tuple(self.handshakes):
            handshake.drop()
        self._empty.clear()
        for connection in tuple(self.connections):
            connection.end()
        try:
            async with asyncio.timeout(grace):
                while self.connections:
                    await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self.connections):
                connection.drop()
        await asyncio.gather(*(connection.ended() for connection in tuple(self.connections)))
