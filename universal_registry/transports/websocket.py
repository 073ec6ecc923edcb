"""WebSocket targets: a stream that is kept open; each delivery is a frame, and done when the receiver acknowledges it.

A stream that breaks is not mended behind our back: what waited on it has failed, and the next attempt connects anew.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from typing import Any

import orjson

from universal_registry.kernel.errors import AddressRefused, Invalid
from universal_registry.kernel.world import World
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.streams import IN, OUT, Count
from universal_registry.security.addresses import Policy, Url, check_peer, check_url
from universal_registry.transports.net import HungUp, NotHttp, Resolve, SystemNames, Way, addresses_of, plain, trouble
from universal_registry.transports.net.websocket import Closed, Declined, WebSocket

MOST_KEPT = 256
PING_SECONDS, IDLE_SECONDS = 20.0, 300.0
_LONGEST_WAIT = timedelta(hours=24)
_REJECTED = (400, 413, 422)
_TAKEN = 200
_SHOWN = 300
_MOST_MESSAGE = 64 << 10
_Asked = tuple[str, Policy, bool]


class WebSocketTransport:
    """Sends to `ws://` and `wss://` URLs, at addresses that the envelope's policy allows.

    `resolve`: the resolver (the system's). `tls`: the trust for wss (the system's authorities). `count`: told of each
    message.
    """

    name = "websocket"

    def __init__(
        self,
        world: World,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        count: Count | None = None,
    ) -> None:
        self._world = world
        self._resolve = resolve
        self._tls = tls
        self._count = count or _nobody
        self._streams: dict[_Asked, _Stream] = {}

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt. Whatever happens within `envelope.timeout` seconds becomes the outcome; raises nothing else."""
        began = self._world.monotonic()
        url: Url | None = None
        answer: dict[str, Any] = {}
        problem, status, setup = "", None, False
        try:
            url = check_url(envelope.url, insecure_http=envelope.insecure_http)
            if url.address is not None:
                check_peer(url, url.host, envelope.network)
            async with asyncio.timeout(envelope.timeout):
                answer = await self._stream(url, envelope).ask(envelope)
        except TimeoutError:
            assert url is not None
            problem = f"no acknowledgement from {url.authority} within {envelope.timeout:g} s"
        except Declined as no:
            status, problem = no.status, f"the handshake was answered with {no.status}"
        except Exception as error:  # noqa: BLE001 - the port's contract; the reason names what happened
            problem, setup = _reason(url, error), isinstance(error, AddressRefused)
        milliseconds = round((self._world.monotonic() - began) * 1000, 3)
        if problem:
            return Failed(reason=problem, status=status, milliseconds=milliseconds, setup=setup)
        return _outcome(answer, milliseconds)

    async def close(self) -> None:
        """Close what is kept open. It may be used again."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            await stream.close()

    def _stream(self, url: Url, envelope: Envelope) -> _Stream:
        asked = (envelope.url, envelope.network, envelope.insecure_http)
        stream = self._streams.get(asked)
        if stream is None:
            self._make_room()
            tls = self._trust() if url.scheme == "wss" else None
            way = Way(url, envelope.network, tls)
            stream = self._streams[asked] = _Stream(way, self._resolve or SystemNames(), self._count)
        return stream

    def _make_room(self) -> None:
        """Let go of one that nothing waits on, when there are too many."""
        if len(self._streams) < MOST_KEPT:
            return
        for asked, stream in self._streams.items():
            if not stream.is_busy:
                stream.drop()
                del self._streams[asked]
                return
        raise Invalid(f"{MOST_KEPT} streams are open, and all are busy")

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _Stream:
    """The one connection to a URL, made when it is needed, given up when nothing was sent for some minutes."""

    def __init__(self, way: Way, resolve: Resolve, count: Count) -> None:
        self._way = way
        self._resolve = resolve
        self._count = count
        self._name = way.url.authority
        self._lock = asyncio.Lock()
        self._socket: WebSocket | None = None
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._used = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether something waits on it."""
        return bool(self._waiting) or self._lock.locked()

    async def ask(self, envelope: Envelope) -> dict[str, Any]:
        """Send one delivery; the frame that answers it. Raises Closed, Declined, HungUp, NotHttp, OSError, Invalid."""
        headers = {name.lower(): value for name, value in envelope.headers}
        number = headers.get("webhook-id", "")
        try:
            body = envelope.body.decode()
        except UnicodeDecodeError:
            raise Invalid("the body is not UTF-8, and frames are text") from None
        if number in self._waiting:
            raise Invalid("the delivery is under way on this stream already")
        frame = orjson.dumps({"type": "delivery", "id": number, "headers": headers, "body": body})
        socket = await self._connected()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._waiting[number] = answer
        self._used = began = loop.time()
        try:
            socket.send(frame)
            found = await answer
        finally:
            self._waiting.pop(number, None)
        self._count(self._name, OUT, 1, len(frame), (loop.time() - began) * 1000)
        return found

    async def close(self) -> None:
        """Say farewell."""
        socket, self._socket = self._socket, None
        self._stop_timer()
        if socket is not None:
            await socket.close()

    def drop(self) -> None:
        """End it as it is."""
        socket, self._socket = self._socket, None
        self._stop_timer()
        if socket is not None:
            socket.drop()

    async def _connected(self) -> WebSocket:
        async with self._lock:
            if self._socket is not None and self._socket.is_usable:
                return self._socket
            self.drop()
            loop, way = asyncio.get_running_loop(), self._way
            addresses = await addresses_of(way.url, way.policy, self._resolve)
            deadline = loop.time() + 3600.0  # whoever asks has a deadline, which is shorter
            socket, _ = await way.connect(addresses, self._made, deadline)
            try:
                await socket.opened()
            except BaseException:
                socket.drop()
                raise
            self._socket = socket
            self._timer = loop.call_later(PING_SECONDS, self._look, socket)
            return socket

    def _made(self) -> WebSocket:
        socket = WebSocket(str(self._way.url), {}, _MOST_MESSAGE)
        socket.on_message, socket.on_end = self._heard, self._ended
        return socket

    def _heard(self, message: bytes) -> None:
        self._count(self._name, IN, 1, len(message), None)
        try:
            answer = orjson.loads(message)
        except orjson.JSONDecodeError:
            answer = None
        waiting = self._waiting.get(answer["id"]) if isinstance(answer, dict) and _fits(answer) else None
        if waiting is not None and not waiting.done():  # else it is of one that was given up, or of nothing
            waiting.set_result(answer)

    def _ended(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)

    def _look(self, socket: WebSocket) -> None:
        """Every few seconds: whether it is still there, and still needed."""
        loop = asyncio.get_running_loop()
        self._timer = None
        if socket is not self._socket:
            return
        if not socket.is_usable or (not self._waiting and loop.time() - self._used > IDLE_SECONDS) or not socket.ping():
            self.drop()
            return
        self._timer = loop.call_later(PING_SECONDS, self._look, socket)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _fits(answer: dict[str, Any]) -> bool:
    return answer.get("type") in ("ack", "nack") and isinstance(answer.get("id"), str)


def _outcome(answer: dict[str, Any], milliseconds: float) -> Outcome:
    """What the receiver's answer means: as the status of the same number does over HTTP."""
    if answer["type"] == "ack":
        said = answer.get("answer", "")
        return Accepted(status=_TAKEN, milliseconds=milliseconds, answer=said if isinstance(said, str) else "")
    status, reason = answer.get("status"), answer.get("reason")
    status = status if isinstance(status, int) and 400 <= status < 600 else 500
    text = plain(f"{status}: {reason[:_SHOWN]}") if isinstance(reason, str) and reason else f"{status}"
    if status in _REJECTED:
        return Rejected(reason=text, status=status, milliseconds=milliseconds)
    after = answer.get("retry_after")
    wait = None
    if isinstance(after, int | float) and not isinstance(after, bool) and after >= 0:
        wait = min(timedelta(seconds=min(after, 10**6)), _LONGEST_WAIT)
    return Failed(reason=text, status=status, milliseconds=milliseconds, retry_after=wait)


def _reason(url: Url | None, error: Exception) -> str:
    if url is None:
        return plain(str(error))
    if isinstance(error, Closed):
        why = plain(f" ({error.code} {error.reason[:_SHOWN]})".replace(" )", ")"))
        return f"{url.authority} closed the stream without an acknowledgement{why}"
    if isinstance(error, NotHttp):
        return plain(f"{url.authority} does not speak WebSocket: {error}")
    if isinstance(error, HungUp):
        return f"{url.authority} closed the connection without an answer"
    return plain(trouble(url, error, began=False))


def _nobody(_stream: str, _direction: str, _messages: int, _size: int, _milliseconds: float | None = None) -> None:
    return
