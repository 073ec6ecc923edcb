"""Streams from Python, asynchronous, over one WebSocket each.

    client = StreamClient(["wss://registry.example:8443"], token="ur_...")
    async for change in client.stream("kind=alias", start="list"): ...
    await client.push({"type": "put", "record": {"kind": "alias", "name": "gs", "spec": {"command": "git status"}}})

A stream outlives its connection, as a watch does: it is made again, at any daemon of the registry, and goes on behind
the last frame that came whole.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

import orjson

from universal_registry.client.errors import error_from
from universal_registry.client.http import quote
from universal_registry.client.watch import Change, Frame, WatchClient
from universal_registry.client.wire import split_address
from universal_registry.kernel.errors import RegistryError, TimedOut, Unreachable, Untrusted, UsageError
from universal_registry.kernel.world import World
from universal_registry.transports.net import HungUp, NotHttp
from universal_registry.transports.net.websocket import Closed, Declined, WebSocket

PATH = "/v1/stream"
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_SWITCH = {"ws": False, "wss": True}


class StreamClient(WatchClient):
    """`addresses`: where the daemons of one registry are: `wss://HOST:PORT`, `ws://...`, `HOST:PORT`, or the path of a
    socket; or what says them, asked anew for every connection. `tls`: the trust for wss (the system's authorities).
    `name`: the stream as which it is counted."""

    def __init__(
        self,
        addresses: Sequence[str] | Callable[[], Sequence[str]],
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "",
        world: World | None = None,
    ) -> None:
        known = addresses if callable(addresses) else lambda: addresses
        super().__init__(known, token=token, world=world)
        self._tls = tls
        self._name = name
        self._pushing: WebSocket | None = None
        self._number = 0
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection for pushes; it can be used again."""
        pushing, self._pushing = self._pushing, None
        if pushing is not None:
            await pushing.close()

    async def stream(
        self, *select: str, start: str = "now", consumer: str = "", policy: str = "wait"
    ) -> AsyncGenerator[Change, None]:
        """What `WatchClient.watch` gives, over a WebSocket. `ack` tells how far it is done."""
        async with aclosing(self.watch(*select, start=start, consumer=consumer, policy=policy)) as changes:
            async for change in changes:
                yield change

    async def push(self, *messages: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Send requests (docs/how-to/streams.md), all at once, and wait for their answers, in the same order.

        Raises the RegistryError of the first that was refused, when all are answered; Unreachable, when the connection
        broke: what was sent may or may not have been done, so repeat it with its `idempotency_key`.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    answers = await self._answers(messages)
            except TimeoutError:
                await self.close()
                raise TimedOut("the answers did not come in time", hint="what was asked may have been done") from None
            except (OSError, HungUp, NotHttp, Closed) as error:
                await self.close()
                hint = "what was asked may or may not have been done: repeat it with its idempotency_key"
                raise Unreachable(f"the stream broke: {error}", hint=hint) from None
        for answer in answers:
            _check(answer)
        return answers

    async def ack(self, consumer: str, cursor: str) -> None:
        """A named consumer has dealt with everything up to there."""
        await self.push({"type": "ack", "consumer": consumer, "cursor": cursor})

    async def _answers(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._pushing is None or not self._pushing.is_usable:
            self._pushing = await self._open()
        socket, first = self._pushing, self._number
        self._number += len(messages)
        for number, message in enumerate(messages, first):
            socket.send(orjson.dumps({**message, "id": number}))
            await socket.drain()
        found: dict[int, dict[str, Any]] = {}
        while len(found) < len(messages):
            answer = orjson.loads(await socket.receive())
            found[answer.get("id")] = answer
        return [found[number] for number in range(first, first + len(messages))]

    async def _connection(self, query: Mapping[str, Any]) -> AsyncGenerator[Frame, None]:
        """As WatchClient: the frames of one connection, until it ends or breaks."""
        try:
            socket = await self._open()
        except (HungUp, NotHttp) as error:
            raise Unreachable(str(error) or "the daemon hung up") from None
        try:
            left_out = ("heartbeat", "from") if query.get("consumer") else ("heartbeat",)
            said = {name: value for name, value in query.items() if value and name not in left_out}
            socket.send(orjson.dumps({"type": "subscribe", **said}))
            while True:
                frame = orjson.loads(await socket.receive())
                _check(frame)
                if frame["type"] != "subscribed":
                    yield frame
        except Closed as error:
            raise ConnectionResetError(str(error)) from None
        finally:
            await socket.close()

    async def _open(self) -> WebSocket:
        addresses = self._addresses()
        if not addresses:
            raise Unreachable("no daemon of this registry is known", hint="`ureg up` starts one")
        address = addresses[self._turn % len(addresses)]
        self._turn += 1  # unless it answers, the next one's turn is next
        async with asyncio.timeout(_CONNECT_SECONDS):
            try:
                socket = await self._connected(address)
            except ssl.SSLCertVerificationError as error:  # another try would end the same
                raise Untrusted(f"the certificate of {address} is not good: {error.verify_message}") from None
            try:
                await socket.opened()
            except Declined as refusal:
                raise error_from(refusal.status, refusal.kind, refusal.body) from None
        self._turn -= 1
        return socket

    async def _connected(self, address: str) -> WebSocket:
        loop = asyncio.get_running_loop()
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        if address.startswith("/"):
            uri = f"ws://localhost{PATH}{self._query()}"
            _, socket = await loop.create_unix_connection(lambda: WebSocket(uri, headers), address)
            return socket
        scheme, found, rest = address.partition("://")
        scheme, rest = (scheme.lower(), rest) if found else ("ws", address)
        if scheme not in _SWITCH:
            raise UsageError(f"{address[:80]!r} is no address of a stream", hint="wss://HOST:PORT, or a socket's path")
        host, slash, path = rest.partition("/")
        uri = f"{scheme}://{host}{slash}{path}" if path else f"{scheme}://{host}{PATH}{self._query()}"
        secure = _SWITCH[scheme]
        name, port = _parts(host, 443 if secure else 80)
        context = (self._tls or ssl.create_default_context()) if secure else None
        _, socket = await loop.create_connection(
            lambda: WebSocket(uri, headers), name, port, ssl=context, server_hostname=name if secure else None
        )
        return socket

    def _query(self) -> str:
        return f"?stream={quote(self._name)}" if self._name else ""


def _parts(host: str, port: int) -> tuple[str, int]:
    return split_address(host if ":" in host.rpartition("]")[2] else f"{host}:{port}")


def _check(answer: dict[str, Any]) -> None:
    """Raises the error that an answer tells of."""
    if answer.get("type") == "problem":
        error: RegistryError = error_from(
            answer["problem"]["status"], "application/problem+json", orjson.dumps(answer["problem"])
        )
        raise error
