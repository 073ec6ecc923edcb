"""The opening handshake of a stream. What is none goes to aiohttp, which answers it as any other request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from websockets.http11 import Request as Head
from websockets.http11 import Response as SwitchingResponse
from websockets.server import ServerProtocol

from universal_registry.api.http import Request, Response, request_from
from universal_registry.api.plain import rendered
from universal_registry.api.stream_connection import StreamConnection
from universal_registry.kernel.errors import Malformed, RegistryError
from universal_registry.registry.service import Actor

if TYPE_CHECKING:
    from universal_registry.api.stream import PeerOf, StreamFront

SUBPROTOCOL = "ureg.v1"
TOKEN_PREFIX = "ureg.token."  # noqa: S105 - what stands before one
_SWITCHING = 101
SILENT = logging.getLogger("universal_registry.websocket")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


class Handshake(asyncio.Protocol):
    """One connection until it is a stream, or turns out to be none."""

    def __init__(
        self, front: StreamFront, peer_of: PeerOf, limit: int, seconds: float, other: Callable[[], asyncio.Protocol]
    ) -> None:
        self._front = front
        self._peer_of = peer_of
        self._limit = limit
        self._seconds = seconds
        self._other = other
        self._data = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle
        self._task: asyncio.Task[None] | None = None
        self._lost = False

    # --- of asyncio --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._transport.abort)
        self._front.handshakes.add(self)

    def data_received(self, data: bytes) -> None:
        """As asyncio says."""
        self._data += data
        if self._task is not None:
            return
        end = self._data.find(b"\r\n\r\n")
        if not self._front.wants(self._data) or len(self._data) > self._limit:
            self._hand_over()
        elif end >= 0:
            self._begin(end + 4)

    def connection_lost(self, _: Exception | None) -> None:
        """As asyncio says."""
        self._lost = True
        self._timer.cancel()
        self._front.handshakes.discard(self)

    # --- the handshake -----------------------------------------------------------------------------------------------

    def _begin(self, end: int) -> None:
        head, rest = self._data[:end], self._data[end:]
        lines = head.lower()
        protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: SUBPROTOCOL if SUBPROTOCOL in offered else None,  # type: ignore[arg-type,return-value]
            logger=SILENT,
        )
        protocol.receive_data(head)
        events = protocol.events_received()
        if b"\r\nupgrade:" not in lines or b"websocket" not in lines or not events:
            self._hand_over()
            return
        self._data = rest
        self._transport.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._answer(protocol, cast(Head, events[0])))

    async def _answer(self, protocol: ServerProtocol, head: Head) -> None:
        try:
            asked, actor = self._admitted(head)
            name = await self._front.name_of(asked, actor)
            response = _accepted(protocol, head)
        except RegistryError as error:
            self._refuse(self._front.api.problem(error))
        except Exception as error:  # noqa: BLE001 - as in Api.dispatch: a bug becomes an answer
            self._refuse(self._front.api.bug(error))
        else:
            protocol.send_response(response)
            if not self._lost:
                self._become(asked, actor, name, b"".join(protocol.data_to_send()))
        finally:
            protocol.parser.close()  # which holds it, and is held by it
            protocol.__dict__.clear()

    def _admitted(self, head: Head) -> tuple[Request, Actor]:
        front = self._front
        asked = request_from("GET", head.path, list(head.headers.raw_items()), b"", self._peer_of(self._transport))
        asked = _with_token(asked)
        admitted = front.api.admit(asked)
        front.check(asked)
        assert admitted.actor is not None
        return asked, admitted.actor

    def _become(self, asked: Request, actor: Actor, name: str, answer: bytes) -> None:
        self._timer.cancel()
        self._front.handshakes.discard(self)
        self._transport.write(answer)
        kept, known = self._front.caller(asked, actor)
        connection = StreamConnection(self._front, kept, known, name)
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        self._transport.resume_reading()
        if self._data:
            connection.data_received(self._data)

    def _refuse(self, response: Response) -> None:
        if self._lost:
            return
        closing = Response(
            status=response.status, headers=(*response.headers, ("Connection", "close")), body=response.body
        )
        from email.utils import format_datetime

        self._transport.write(rendered(closing, format_datetime(self._front.api.now(), usegmt=True)))
        self._transport.close()

    def _hand_over(self) -> None:
        self._timer.cancel()
        self._front.handshakes.discard(self)
        other = self._other()
        self._transport.set_protocol(other)
        other.connection_made(self._transport)
        other.data_received(self._data)

    def drop(self) -> None:
        """Close it as it is."""
        self._transport.abort()


def _accepted(protocol: ServerProtocol, head: Head) -> SwitchingResponse:
    """The answer that makes it a stream. Raises Malformed."""
    response = protocol.accept(head)
    if response.status_code != _SWITCHING:
        raise Malformed(f"this is no WebSocket handshake: {protocol.handshake_exc}", hint="RFC 6455, version 13")
    return response


def _with_token(asked: Request) -> Request:
    """Browsers cannot send headers with a handshake: they offer the token as a subprotocol. It is never in the URL."""
    if "authorization" in asked.headers:
        return asked
    offered = (word.strip() for word in asked.header("sec-websocket-protocol").split(","))
    token = next((word.removeprefix(TOKEN_PREFIX) for word in offered if word.startswith(TOKEN_PREFIX)), None)
    if token is None:
        return asked
    headers = {**asked.headers, "authorization": f"Bearer {token}"}
    return Request(method=asked.method, path=asked.path, peer=asked.peer, query=asked.query, headers=headers)
