"""The side of a link that connects, over HTTP: one connection sends, another one waits for what the peer has to say."""

from __future__ import annotations

import asyncio
import ssl
from typing import TypeVar

import msgspec

from universal_registry.kernel.errors import AddressRefused, Unreachable, VerifyError
from universal_registry.kernel.world import World
from universal_registry.security.addresses import Policy, Url
from universal_registry.security.pairing import (
    Answered,
    Closed,
    Keys,
    MachineKey,
    Opening,
    open_numbered,
    seal_numbered,
)
from universal_registry.sync.pairing import Paired, peer_url
from universal_registry.transports.net import (
    BrokeOff,
    Connection,
    Exchange,
    HungUp,
    NotHttp,
    Resolve,
    SystemNames,
    Unfit,
    Way,
    addresses_of,
    plain,
    trouble,
)
from universal_registry.transports.peer.link import Link
from universal_registry.transports.peer.paths import (
    JOIN_PATH,
    LINKS_PATH,
    MESSAGE_BYTES,
    OCTETS,
    POLL_SECONDS,
    packed,
    unpacked,
)

T = TypeVar("T")
_SECONDS = 15.0
_MOST_ANSWER = MESSAGE_BYTES + (4 << 20)
_BROKEN = (OSError, NotHttp, HungUp, BrokeOff, Unfit)


class Caller:
    """Requests to one registry, one after the other, on a kept connection."""

    def __init__(self, url: Url, resolve: Resolve | None = None) -> None:
        self._url = url
        self._way = Way(url, Policy.LOOPBACK, _tls() if url.scheme == "https" else None)
        self._resolve = resolve or SystemNames()
        self._open: set[Connection] = set()
        self._kept: Connection | None = None

    async def ask(self, path: str, kind: str, body: bytes, seconds: float, *, again: bool = False) -> bytes:
        """The body of the answer. `again`: on another connection if this one breaks; what is asked must bear that.

        Raises Unreachable, and Refused or AddressRefused; the peer's own word as Unreachable, too.
        """
        loop = asyncio.get_running_loop()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._url.authority}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        while True:
            exchange = Exchange(_MOST_ANSWER)
            deadline = loop.time() + seconds
            try:
                connection = await self._connection(deadline)
                if await connection.ask(head.encode("latin-1") + body, exchange, deadline):
                    self._kept = connection
                else:
                    connection.drop()
            except AddressRefused:
                raise
            except _BROKEN as error:
                if again and isinstance(error, OSError | HungUp | BrokeOff) and not isinstance(error, TimeoutError):
                    again = False
                    continue
                told = (
                    "no answer in time" if isinstance(error, TimeoutError) else trouble(self._url, error, began=False)
                )
                raise Unreachable(plain(told)) from None
            return self._answered(exchange)

    async def _connection(self, deadline: float) -> Connection:
        kept, self._kept = self._kept, None
        if kept is not None and not kept.lost.done():
            return kept
        async with asyncio.timeout_at(deadline):
            addresses = await addresses_of(self._url, Policy.LOOPBACK, self._resolve)
            connection, _ = await self._way.connect(addresses, lambda: Connection(self._open), deadline)
        return connection

    def _answered(self, exchange: Exchange) -> bytes:
        if exchange.status == 200:
            return exchange.reply
        try:
            told = msgspec.json.decode(exchange.reply, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError):
            told = _Problem()
        raise Unreachable(plain(f"{self._url.authority} answers {exchange.status}: {told.detail}"), code=told.code)

    def close(self) -> None:
        """Drop the connection; a request under way breaks."""
        for connection in tuple(self._open):
            connection.drop()


class _Problem(msgspec.Struct):
    detail: str = "no registry of a version that can be linked"
    code: str = ""


class Dialed:
    """A link that this side has opened. `send` and `poll` are to run side by side until either returns or raises."""

    def __init__(self, link: Link, answered: Answered, keys: Keys, url: Url) -> None:
        self.link = link
        self._path = f"{LINKS_PATH}/{answered.link}"
        self._keys = keys
        self._sender, self._poller = Caller(url), Caller(url)

    @classmethod
    async def open(cls, link: Link, machine: MachineKey, node: str, world: World) -> Dialed:
        """Connect, and prove who both are. Raises Unreachable, VerifyError, AddressRefused, Invalid."""
        peer: Paired = link.peer
        url = peer_url(peer.url)
        opening = Opening(machine, node, peer.node, peer.key, world)
        caller = Caller(url)
        try:
            body = msgspec.json.encode(opening.ask)
            answered = _decoded(await caller.ask(LINKS_PATH, "application/json", body, _SECONDS), Answered)
        finally:
            caller.close()
        return cls(link, answered, opening.finish(answered), url)

    async def send(self) -> None:
        """Send what there is to say, until the link is over. Raises Unreachable, VerifyError."""
        number = 0
        while not self.link.is_over:
            frames = await self.link.take(POLL_SECONDS)
            if frames:
                message = seal_numbered(self._keys.sent, number, packed(frames))
                answer = await self._sender.ask(f"{self._path}/send", OCTETS, message, 2 * POLL_SECONDS, again=True)
                _open_answer(self._keys.sent_answer, number, answer)
                number += 1

    async def poll(self) -> None:
        """Hear what the peer has to say, until the link is over. Raises Unreachable, VerifyError, and what the store
        raises."""
        number = 0
        while not self.link.is_over:
            message = seal_numbered(self._keys.polled, number, b"")
            answer = await self._poller.ask(f"{self._path}/poll", OCTETS, message, 2 * POLL_SECONDS, again=True)
            data = _open_answer(self._keys.polled_answer, number, answer)
            number += 1
            self.link.heard()
            await self.link.receive(unpacked(data))

    def close(self) -> None:
        """Break what is under way."""
        self.link.close()
        self._sender.close()
        self._poller.close()


async def ask_to_join(url: str, key: bytes, question: bytes, world: World) -> bytes:
    """A question about an invitation, for the owner of that key alone, and the answer. Raises as `Dialed.open`."""
    caller = Caller(peer_url(url))
    closed = Closed(key, question, world)
    try:
        told = await caller.ask(JOIN_PATH, "application/json", msgspec.json.encode(closed.message), _SECONDS)
    finally:
        caller.close()
    return closed.open(_decoded(told, str))


def _open_answer(key: bytes, number: int, answer: bytes) -> bytes:
    said, data = open_numbered(key, answer)
    if said != number:
        raise VerifyError(f"answer {said} came to message {number}")
    return data


def _decoded(data: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise VerifyError("the answer is not that of a registry") from None


def _tls() -> ssl.SSLContext:
    """TLS under which nobody is trusted yet: who is at the other end is proved by its pinned key, inside."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
