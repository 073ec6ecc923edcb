"""NATS: one message to a stream of JetStream, one acknowledgement, one deadline for both.

Accepted is what a stream has acknowledged, and nothing else. A connection that breaks is not mended behind our back,
with what was unsent in a buffer: what waited on it has failed, and the next attempt connects anew.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Self

from msgspec.structs import replace
from nats.aio.client import Client
from nats.errors import Error as NatsError

from universal_registry.kernel.errors import AddressRefused, RegistryError
from universal_registry.kernel.world import World
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy, Url, check_url
from universal_registry.transports.net import Resolve, SystemNames, Way, addresses_of, plain, trouble
from universal_registry.transports.net.nats import Unwilling, Wire

MOST_KEPT = 256
VOUCHED_SECONDS = 5.0
IDLE_SECONDS = 60.0
_PING_SECONDS = 5
_LONGEST_CONNECT = 3600
_TOO_LARGE = (10054,)
_TAKEN = 200
_Asked = tuple[str, Policy, bool, str | None]


class _Refusal(Exception):
    """The server's no: `status` as HTTP would have it."""

    def __init__(self, status: int | None, reason: str, *, setup: bool = False) -> None:
        super().__init__(reason)
        self.status, self.setup = status, setup


class NatsTransport:
    """Publishes to `nats://` and `tls://` URLs, at addresses that the envelope's policy allows.

    `resolve`: the resolver (the system's). `tls`: the trust for tls (the system's authorities).
    """

    name = "nats"

    def __init__(
        self,
        world: World,
        *,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._world = world
        self._resolve = resolve
        self._tls = tls
        self._servers: dict[_Asked, _Server] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, envelope: Envelope) -> Outcome:
        """One attempt. Whatever happens within `envelope.timeout` seconds becomes the outcome; raises nothing else."""
        began = self._world.monotonic()
        url: Url | None = None
        outcome: Outcome
        try:
            url = check_url(envelope.url, insecure_http=envelope.insecure_http)
            deadline = asyncio.get_running_loop().time() + envelope.timeout
            async with asyncio.timeout_at(deadline), self._server(url, envelope) as server:
                link = await server.link(deadline)
                outcome = Accepted(status=_TAKEN, milliseconds=0.0, answer=await link.publish(envelope))
        except TimeoutError:
            assert url is not None
            outcome = _failed(f"no acknowledgement from {url.authority} within {envelope.timeout:g} s")
        except _Refusal as no:
            outcome = _refused(no)
        except Exception as error:  # noqa: BLE001 - the port's contract; the reason names what happened
            outcome = _failed(_reason(url, error), setup=isinstance(error, AddressRefused))
        return _timed(outcome, round((self._world.monotonic() - began) * 1000, 3))

    async def close(self) -> None:
        """Close what is kept open. It may be used again."""
        servers, self._servers = self._servers, {}
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for server in servers.values():
            await server.close()

    def _server(self, url: Url, envelope: Envelope) -> _Server:
        """The server of the URL, as one policy and one credential reach it: connections are shared by no others."""
        asked = (url.origin, envelope.network, envelope.insecure_http, envelope.credential)
        server = self._servers.pop(asked, None)
        if server is None:
            for other, rests in self._servers.items():
                if other[:-1] == asked[:-1] and not rests.users:  # it may be the credential that this one replaces
                    rests.drop()
            self._make_room()
            way = Way(url, envelope.network, self._trust() if url.scheme == "tls" else None)
            server = _Server(way, envelope.credential, self._resolve or SystemNames())
        self._servers[asked] = server  # the last of them: the most recently used
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._sweep)
        return server

    def _make_room(self) -> None:
        """Let go of what was used longest ago and nothing waits on. Those under way are the engine's to limit."""
        for asked, server in list(self._servers.items()):
            if len(self._servers) < MOST_KEPT:
                return
            if not server.users:
                server.drop()
                del self._servers[asked]

    def _sweep(self) -> None:
        """Let go of what has rested too long: a target that is gone or has another credential leaves no connection."""
        loop = asyncio.get_running_loop()
        for asked, server in list(self._servers.items()):
            if not server.users and loop.time() - server.used_at >= IDLE_SECONDS:
                server.drop()
                del self._servers[asked]
        self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep) if self._servers else None

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _Server:
    """A server, and the one connection to it that all its targets share. Entered by each attempt that uses it."""

    def __init__(self, way: Way, credential: str | None, resolve: Resolve) -> None:
        self._way, self._credential, self._resolve = way, credential, resolve
        self._lock = asyncio.Lock()
        self._link: _Link | None = None
        self._vouched_until = float("-inf")
        self.users = 0
        self.used_at = 0.0

    async def __aenter__(self) -> Self:
        self.users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.users -= 1
        self.used_at = asyncio.get_running_loop().time()

    async def link(self, deadline: float) -> _Link:
        """The connection, made if there is none, at an address to which the name still leads."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._link is not None and self._link.open and now < self._vouched_until:
                return self._link
            addresses = await addresses_of(self._way.url, self._way.policy, self._resolve)
            self._vouched_until = now + VOUCHED_SECONDS
            if self._link is not None and self._link.open and self._link.address in addresses:
                return self._link
            await self.close()
            link = _Link(self._way, addresses, deadline)
            try:
                await link.connect(self._credential)
            except BaseException:
                link.drop()
                raise
            self._link = link
            return link

    def drop(self) -> None:
        """Let go of the connection at once."""
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


class _Link:
    """One connection, and what is published on it and not acknowledged yet."""

    def __init__(self, way: Way, addresses: Sequence[str], deadline: float) -> None:
        self._url, self._way = way.url, way
        self._wire = Wire(way, addresses, deadline)
        self._client = Client()
        # The library has no public place for it; that it is used, the tests of TLS and of addresses prove.
        self._client._transport = self._wire
        self._waiting: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._numbers = count()
        self._inbox = ""
        self._connecting = True

    @property
    def open(self) -> bool:
        return bool(self._client.is_connected) and self._wire.is_open

    @property
    def address(self) -> str:
        return self._wire.address

    async def connect(self, credential: str | None) -> None:
        """Raises _Refusal, AddressRefused, OSError, NatsError."""
        more: dict[str, Any] = {} if self._way.tls is None else {"tls": self._way.tls}
        try:
            await self._client.connect(
                self._url.origin,  # for its messages: where to connect is the wire's business
                allow_reconnect=False,
                connect_timeout=_LONGEST_CONNECT,  # the attempt has a deadline of its own
                ping_interval=_PING_SECONDS,
                pending_size=0,  # nothing is kept while there is no connection, and publishing never waits for a flush
                error_cb=self._erred,
                closed_cb=self._closed,
                **_login(credential),
                **more,
            )
        except NatsError as error:
            if "authorization" not in str(error).lower():
                raise
            raise _Refusal(401, f"{self._url.authority} refused the user, the password or the token") from None
        except Unwilling as no:
            raise _Refusal(None, f"{self._url.authority}: {no}", setup=True) from None
        self._connecting = False
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def publish(self, envelope: Envelope) -> str:
        """Publish, and wait for the stream: what it answered. Raises _Refusal, ConnectionError."""
        size = len(envelope.body) + sum(len(name) + len(value) + 4 for name, value in envelope.headers) + 12
        if size > self._client.max_payload:
            most = self._client.max_payload
            raise _Refusal(413, f"the message has {size} bytes, and {self._url.authority} takes {most}")
        reply = f"{self._inbox}.{next(self._numbers)}"
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = (envelope.subject, future)
        try:
            await self._client.publish(envelope.subject, envelope.body, reply, headers=dict(envelope.headers))
            return _acknowledged(await future, envelope.subject, self._url)
        finally:
            del self._waiting[reply]

    def drop(self) -> None:
        """Break it off; what waits on it fails as soon as the library has noticed."""
        self._wire.drop()

    async def close(self) -> None:
        """Drop it; what waits on it fails."""
        self.drop()
        await self._client.close()
        await self._closed()

    async def _answered(self, message: Any) -> None:
        _, future = self._waiting.get(message.subject, ("", None))
        if future is not None and not future.done():
            future.set_result(message)

    async def _closed(self) -> None:
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError())

    async def _erred(self, error: Exception) -> None:
        """The server refuses a subject: it says so, and sends no answer. While we connect, whatever happens ends it:
        the library would try again by itself."""
        if self._connecting:
            raise error
        denied = re.search(r"permissions violation for publish to \"(.*)\"", str(error), re.IGNORECASE | re.DOTALL)
        for subject, future in self._waiting.values():
            if denied and subject.lower() == denied[1].lower() and not future.done():
                future.set_exception(_Refusal(403, f"{self._url.authority} lets us not publish to {subject}"))


def _login(credential: str | None) -> dict[str, Any]:
    """`user:password`, or a token alone."""
    if credential is None:
        return {}
    user, colon, password = credential.partition(":")
    return {"user": user, "password": password} if colon else {"token": credential}


def _acknowledged(message: Any, subject: str, url: Url) -> str:
    """The stream's answer. Raises _Refusal for every other."""
    if (message.headers or {}).get("Status") == "503":
        prefix = url.target.removeprefix("/")
        make = f"nats stream add {prefix.replace('.', '-')} --subjects '{prefix}.>' --defaults"
        raise _Refusal(404, f"no stream of {url.authority} takes {subject}: {make}")
    try:
        answer = json.loads(message.data)
    except ValueError:
        answer = None
    if not isinstance(answer, Mapping):
        raise _Refusal(None, f"the answer of {url.authority} is none of JetStream's")
    error = answer.get("error")
    if isinstance(error, Mapping):
        large = error.get("err_code") in _TOO_LARGE
        raise _Refusal(413 if large else 503, f"the stream of {url.authority}: {error.get('description')}"[:300])
    if not isinstance(answer.get("stream"), str) or not isinstance(answer.get("seq"), int):
        raise _Refusal(None, f"the answer of {url.authority} is none of JetStream's")
    again = ", which had it already" if answer.get("duplicate") else ""
    return f"stream {answer['stream']}, sequence {answer['seq']}{again}"


def _refused(no: _Refusal) -> Outcome:
    reason = plain(str(no))
    if no.status == 413:
        return Rejected(reason=reason, status=413, milliseconds=0.0)
    return Failed(reason=reason, status=no.status, milliseconds=0.0, setup=no.setup)


def _failed(reason: str, *, setup: bool = False) -> Failed:
    return Failed(reason=reason, status=None, milliseconds=0.0, setup=setup)


def _timed(outcome: Outcome, milliseconds: float) -> Outcome:
    return replace(outcome, milliseconds=milliseconds)


def _reason(url: Url | None, error: Exception) -> str:
    if url is None:
        return plain(str(error)) if isinstance(error, RegistryError) else f"a fault of ours: {type(error).__name__}"
    if isinstance(error, NatsError):
        return plain(f"{url.authority}: {str(error).removeprefix('nats: ')}"[:300])
    return plain(trouble(url, error, began=False))
