"""The websocket transport over real sockets: what is sent, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from websockets.asyncio.server import ServerConnection, serve

from universal_registry.client.listen import Heard, Receiver, State
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy
from universal_registry.security.signing import new_secret, parse_secret, signed_headers
from universal_registry.transports.websocket import WebSocketTransport

BOTH_LOOPS = True
LONG = 20.0
WORLD = SystemWorld()
BODY = (
    b'{"specversion":"1.0","id":"1.7.0","source":"/registries/1","type":"registry.alias.created.v1",'
    b'"subject":"alias/default/gs","sequence":"0000000000000007.000000","data":{"\xc3\xa4":1}}'
)


def envelope(url: str, number: str = "d1", seconds: float = LONG, secret: str = "") -> Envelope:
    headers = {"content-type": "application/cloudevents+json", "webhook-id": number}
    if secret:
        headers |= signed_headers([parse_secret(secret)], number, int(WORLD.now().timestamp()), BODY, None)
    return Envelope(url=url, headers=tuple(headers.items()), body=BODY, network=Policy.LOOPBACK, timeout=seconds)


Handle = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def far_side(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async with serve(handle, "127.0.0.1", 0, ssl=tls) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/in"


def answering(**answer: Any) -> Handle:
    async def handle(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(json.dumps({"id": json.loads(message)["id"], **answer}))

    return handle


@pytest.fixture
async def transport() -> AsyncIterator[WebSocketTransport]:
    made = WebSocketTransport(WORLD)
    yield made
    await made.close()


async def test_our_receiver_verifies_and_acknowledges(transport: WebSocketTransport) -> None:
    secret, heard = new_secret(WORLD), list[Heard]()
    receiver = Receiver(world=WORLD, secrets=[secret], on_event=heard.append)
    host, port = await receiver.start("127.0.0.1", 0)
    url = f"ws://{host}:{port}/"
    try:
        first = await transport.send(envelope(url, "d1", secret=secret))
        again = await transport.send(envelope(url, "d1", secret=secret))
        other = await transport.send(envelope(url, "d2", secret=new_secret(WORLD)))
    finally:
        await transport.close()
        await receiver.stop()
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert [each.state for each in heard] == [State.RECEIVED, State.REPEATED, State.REFUSED]
    assert (heard[0].id, heard[0].verified, heard[0].data) == ("d1", True, {"ä": 1})
    assert isinstance(other, Failed)
    assert other.status == 401


async def test_one_connection_carries_many_at_once(transport: WebSocketTransport) -> None:
    opened, waiting = 0, list[str]()

    async def handle(socket: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        async for message in socket:
            waiting.append(json.loads(message)["id"])
            if len(waiting) == 20:  # answered in the opposite order, and only when all are there
                for number in reversed(waiting):
                    await socket.send(json.dumps({"type": "ack", "id": number}))

    async with far_side(handle) as url:
        outcomes = await asyncio.gather(*(transport.send(envelope(url, f"d{each}")) for each in range(20)))
    assert all(isinstance(each, Accepted) for each in outcomes)
    assert opened == 1


@pytest.mark.parametrize(
    ("answer", "kind", "status", "wait"),
    [
        ({"type": "nack", "status": 429, "retry_after": 7, "reason": "slow\ndown"}, Failed, 429, 7),
        ({"type": "nack", "status": 410}, Failed, 410, None),
        ({"type": "nack", "status": 422, "reason": "bad"}, Rejected, 422, None),
        ({"type": "nack"}, Failed, 500, None),
        ({"type": "nack", "status": 200, "retry_after": -1}, Failed, 500, None),
        ({"type": "nack", "status": 503, "retry_after": 1e300}, Failed, 503, 86400),
    ],
)
async def test_what_an_answer_means(
    transport: WebSocketTransport, answer: dict[str, Any], kind: type, status: int, wait: float | None
) -> None:
    async with far_side(answering(**answer)) as url:
        outcome = await transport.send(envelope(url))
    assert isinstance(outcome, kind)
    assert isinstance(outcome, Failed | Rejected)
    assert outcome.status == status
    assert "\n" not in outcome.reason
    if isinstance(outcome, Failed):
        assert (outcome.retry_after.total_seconds() if outcome.retry_after else None) == wait


async def test_nothing_but_the_acknowledgement_of_this_delivery_counts(transport: WebSocketTransport) -> None:
    async def handle(socket: ServerConnection) -> None:
        async for _ in socket:
            for text in ("x", "[]", '{"type":"ack"}', '{"type":"ack","id":"other"}', '{"type":"ok","id":"d1"}'):
                await socket.send(text)

    async with far_side(handle) as url:
        outcome = await transport.send(envelope(url, seconds=0.3))
    assert isinstance(outcome, Failed)
    assert "no acknowledgement" in outcome.reason


async def test_a_stream_that_ends_fails_what_waits_and_is_made_again(transport: WebSocketTransport) -> None:
    opened = 0

    async def handle(socket: ServerConnection) -> None:
        nonlocal opened
        opened += 1
        message = json.loads(await socket.recv())
        if opened > 1:
            await socket.send(json.dumps({"type": "ack", "id": message["id"]}))
            await socket.wait_closed()
        await socket.close(1012, "back soon")

    async with far_side(handle) as url:
        first = await transport.send(envelope(url))
        second = await transport.send(envelope(url))
        await transport.close()
    assert isinstance(first, Failed)
    assert "closed the stream without an acknowledgement (1012 back soon)" in first.reason
    assert isinstance(second, Accepted)
    assert opened == 2


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "answered with 403"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", "no WebSocket"),
        (b"SSH-2.0-x\r\n\r\n", "does not speak WebSocket"),
        (b"", "without an answer"),
    ],
    ids=["refused", "wrong", "garbage", "hung-up"],
)
async def test_whoever_does_not_speak_it(transport: WebSocketTransport, raw: bytes, reason: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await transport.send(envelope(f"ws://127.0.0.1:{port}/"))
    assert isinstance(outcome, Failed)
    assert reason in outcome.reason


async def test_addresses_are_held_to_the_policy(transport: WebSocketTransport) -> None:
    held = replace(envelope("wss://127.0.0.1:1/"), network=Policy.PUBLIC)
    outcome = await transport.send(held)
    assert isinstance(outcome, Failed)
    assert outcome.setup

    async def nearby(_: str) -> list[str]:
        return ["127.0.0.1"]

    rebound = WebSocketTransport(WORLD, resolve=nearby)
    outcome = await rebound.send(replace(envelope("wss://far.example/"), network=Policy.PUBLIC))
    assert isinstance(outcome, Failed)
    assert outcome.setup
    clear = await transport.send(replace(envelope("ws://8.8.8.8/"), network=Policy.PUBLIC))
    assert isinstance(clear, Failed)
    assert "cleartext" in clear.reason
