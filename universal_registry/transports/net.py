"""Connections to checked addresses only: what every transport over sockets shares.

A name is resolved once for a connection, every answer must pass the target's policy, the socket is opened to a checked
address (SNI and Host keep the name), and the address connected to is checked again before a byte is sent. A connection
that is used again is checked again as well, since another target with another policy may share it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import partial
from typing import Any

from aiohttp import AddrInfoType, ClientConnectionError, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from universal_registry.security.addresses import Policy, Url, check_peer

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host name -> its IP addresses as text. Raises OSError when it has none. What it answers is never believed."""

# Shorter than the idle time of common servers (5 s), so that we seldom write to one that is just hanging up.
KEEP_ALIVE_SECONDS = 4.0
MOST_INTERIM = 16
_MOST_LOOKUPS = 32
_MOST_ADDRESSES = 16


class Stage(StrEnum):
    """How far an attempt has come."""

    RESOLVING = "resolving"
    CONNECTING = "connecting"
    ANSWERING = "answering"


class Attempt:
    """Whom the running attempt may connect to, and how far it has come. `keep`: whether its connection may be kept.

    The connector finds it by the context (`current`), which tasks started on its behalf inherit.
    """

    __slots__ = ("_connection", "_transport", "keep", "policy", "stage", "url")

    def __init__(self, url: Url, policy: Policy) -> None:
        self.url = url
        self.policy = policy
        self.keep = True
        self.stage = Stage.CONNECTING
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Whatever connects within is held to this attempt's policy."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def check(self, ip: str) -> None:
        """Raises AddressRefused for an address that must not be connected to, and for what is no address."""
        check_peer(self.url, ip, self.policy)

    def connected(self, connection: Connection) -> None:
        """The request goes over this one."""
        self._connection, self._transport = connection, connection.transport
        self.stage = Stage.ANSWERING

    def abort(self) -> None:
        """Drop the connection with whatever is unsent: closing it would wait for a peer that does not read."""
        connection, transport = self._connection, self._transport
        if connection is None or transport is None:
            return
        if connection.protocol is not None or transport.is_closing():  # else it is kept, and perhaps another's by now
            transport.abort()


_current: ContextVar[Attempt] = ContextVar("attempt")


class CheckedConnector(TCPConnector):
    """aiohttp's connector, able to connect only within `Attempt.current()`. Make it inside the running loop.

    How many attempts run at once, in all and to one target, is the engine's to limit: a queue in here would spend the
    time of an attempt on waiting and blame the target.
    """

    def __init__(self, resolve: Resolve, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(
            resolver=_CheckedResolver(resolve),
            use_dns_cache=False,
            socket_factory=_checked_socket,
            ssl=True if tls is None else tls,
            limit=0,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        handler: type[ResponseHandler] = _OneAnswer
        self._factory = partial(handler, loop=self._loop)

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """A connection to a checked peer: a kept one or a new one."""
        attempt = _current.get()
        connection = await super().connect(req, traces, timeout)
        answers = connection.protocol
        assert isinstance(answers, _OneAnswer)
        try:
            attempt.check(_peer(connection))
        except BaseException:
            connection.close()
            raise
        answers.ask()
        if not attempt.keep:
            answers.force_close()
        attempt.connected(connection)
        return connection


class _OneAnswer(ResponseHandler):
    """aiohttp's protocol, that takes one answer to one request. What comes unasked would be read as the next one's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._interim = 0
        self._asked = False

    def ask(self) -> None:
        """A request is about to be sent."""
        self._asked, self._interim = True, 0

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer was read: `data` is (message, payload)."""
        if 100 <= data[0].code < 200 and data[0].code != 101:
            self._interim += 1
            if self._interim > MOST_INTERIM:
                self._drop(ClientConnectionError(f"more than {MOST_INTERIM} interim answers"))
            return  # aiohttp would only pass over it
        if not self._asked:
            self._drop(ClientConnectionError("an answer that nobody asked for"))
            return
        self._asked = False
        super().feed_data(data, size)

    def _drop(self, error: Exception) -> None:
        transport = self.transport
        self.set_exception(error)
        if transport is not None:
            transport.abort()


def _peer(connection: Connection) -> str:
    name = connection.transport.get_extra_info("peername") if connection.transport is not None else None
    if not name:
        raise ClientConnectionError("the connection was closed at once")
    return str(name[0])


def _checked_socket(info: AddrInfoType) -> socket.socket:
    """The last check before connecting, on exactly what will be connected to."""
    family, kind, proto, _, address = info
    _current.get().check(str(address[0]))
    return socket.socket(family, kind, proto)


class _CheckedResolver(AbstractResolver):
    """All answers must pass: a mixed answer is how a name is rebound."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - all families are asked for
    ) -> list[ResolveResult]:
        attempt = _current.get()
        attempt.stage = Stage.RESOLVING
        addresses = list(dict.fromkeys(await self._resolve(host)))
        if not addresses:
            raise OSError("it has no address")
        for address in addresses:
            attempt.check(address)
        attempt.stage = Stage.CONNECTING
        return [_result(host, port, address) for address in addresses[:_MOST_ADDRESSES]]

    async def close(self) -> None:
        """Nothing is held."""


def _result(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": family,
        "proto": socket.IPPROTO_TCP,
        "flags": socket.AI_NUMERICHOST,
    }


# --- names ----------------------------------------------------------------------------------------------------------


class SystemNames:
    """The system's resolver, in threads of its own: one look-up for all who wait for a name, some names at once.

    The loop's threads are not used, because names that hang would take them from the stores; and a thread that hangs
    does not keep the process from ending. `look_up`: host -> addresses, blocking.
    """

    def __init__(self, look_up: Callable[[str], list[str]] | None = None, most: int = _MOST_LOOKUPS) -> None:
        self._look_up = look_up or system_look_up
        self._room = asyncio.Semaphore(most)
        self._running: dict[str, asyncio.Future[list[str] | OSError]] = {}

    async def __call__(self, host: str) -> Sequence[str]:
        if host == "localhost" or host.endswith(".localhost"):
            return ("127.0.0.1", "::1")  # RFC 6761: never asked of anybody
        if host not in self._running:
            await self._room.acquire()
            if host in self._running:
                self._room.release()
            else:
                self._start(host)
        found = await asyncio.shield(self._running[host])
        if isinstance(found, OSError):
            raise OSError(found.strerror or str(found))
        return found

    def _start(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[str] | OSError] = loop.create_future()
        self._running[host] = future

        def finish(found: list[str] | OSError) -> None:
            del self._running[host]
            self._room.release()
            future.set_result(found)

        def work() -> None:
            try:
                found: list[str] | OSError = self._look_up(host)
            except OSError as error:
                found = error
            except UnicodeError:
                found = OSError("it is no host name")
            try:
                loop.call_soon_threadsafe(finish, found)
            except RuntimeError:
                return  # the loop has ended, and with it all who waited

        threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()


def system_look_up(host: str) -> list[str]:
    """What the system says, blocking. Raises OSError, UnicodeError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
