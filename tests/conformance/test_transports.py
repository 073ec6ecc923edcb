"""What every transport does, whatever it speaks: the same faults end the same way. Add yours to PLACES.

Only a few words of each protocol are said here, by servers that do one thing wrong; how a transport does with real ones
is told by its own tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.natsserver import NatsServer, free_port
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope, Transport
from universal_registry.security.addresses import Policy
from universal_registry.transports.nats import NatsTransport
from universal_registry.transports.webhook import WebhookTransport

BOTH_LOOPS = True
SHORT, LONG = 0.3, 20.0
WORLD = SystemWorld()


class Fault(StrEnum):
    """How the far side behaves."""

    NONE = "takes it"
    REFUSED = "listens nowhere"
    SILENT = "takes the connection and says nothing"
    HANGING = "takes the message and never answers"
    RESET = "breaks off while it is waited for"
    BABBLING = "speaks another protocol"
    TOO_LARGE = "refuses the payload"
    NOT_LET_IN = "does not know us"
    FORBIDDEN = "is at an address that the policy does not allow"


ENDS: dict[Fault, tuple[type[Outcome], int | None]] = {
    Fault.REFUSED: (Failed, None),
    Fault.SILENT: (Failed, None),
    Fault.HANGING: (Failed, None),
    Fault.RESET: (Failed, None),
    Fault.BABBLING: (Failed, None),
    Fault.TOO_LARGE: (Rejected, 413),
    Fault.NOT_LET_IN: (Failed, 401),
    Fault.FORBIDDEN: (Failed, None),
}
Place = Callable[[Fault, Path], AbstractAsyncContextManager[str]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[int]:
    """A server on a port of its own, which ends with all its connections."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await talk(reader, writer)

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for writer in writers:
            writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break it off so that the other side sees a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


# --- webhook ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def webhook(fault: Fault, _: Path) -> AsyncIterator[str]:
    answers = {Fault.TOO_LARGE: b"413 Too Large", Fault.NOT_LET_IN: b"401 Who", Fault.BABBLING: b"INFO {}"}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if fault is Fault.RESET:
                reset(writer)
            elif fault is Fault.BABBLING:
                writer.write(b"INFO {}\r\n\r\n")
            elif fault is not Fault.HANGING:
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % answers.get(fault, b"200 OK"))

    if fault is Fault.REFUSED:
        yield f"http://127.0.0.1:{free_port()}/"
        return
    async with listening(say_nothing if fault is Fault.SILENT else talk) as port:
        yield f"http://127.0.0.1:{port}/"


# --- NATS -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def nats(fault: Fault, folder: Path) -> AsyncIterator[str]:
    if fault is Fault.REFUSED:
        yield f"nats://127.0.0.1:{free_port()}/ureg"
    elif fault in (Fault.SILENT, Fault.HANGING, Fault.RESET, Fault.BABBLING):
        talk = say_nothing if fault is Fault.SILENT else _nats_talk(fault)
        async with listening(talk) as port:
            yield f"nats://127.0.0.1:{port}/ureg"
    else:
        config = 'authorization { user: u, password: "p" }' if fault is Fault.NOT_LET_IN else "max_payload: 900000"
        server = NatsServer(folder, config)
        try:
            if fault is not Fault.NOT_LET_IN:
                await server.make_stream()
            yield server.url()
        finally:
            server.kill()


def _nats_talk(fault: Fault) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault is Fault.BABBLING:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        writer.write(b"INFO %s\r\n" % json.dumps({"headers": True, "max_payload": 1 << 20}).encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            elif line.startswith(b"HPUB") and fault is Fault.RESET:
                reset(writer)

    return talk


PLACES: dict[str, tuple[type[WebhookTransport | NatsTransport], Place]] = {
    "webhook": (WebhookTransport, webhook),
    "nats": (NatsTransport, nats),
}


def envelope(url: str, body: bytes = b"{}") -> Envelope:
    """For any transport: each takes of it what it needs."""
    headers = (("Nats-Msg-Id", "m1"), ("webhook-id", "m1"), ("content-type", "application/json"))
    return Envelope(url=url, headers=headers, body=body, network=Policy.LOOPBACK, timeout=LONG, subject="ureg.a")


@pytest.fixture(params=PLACES)
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    made = PLACES[request.param][0](WORLD)
    yield made
    await made.close()


@pytest.fixture
def place(transport: Transport) -> Place:
    return PLACES[transport.name][1]


async def tried(transport: Transport, place: Place, fault: Fault, folder: Path) -> Outcome:
    async with place(fault, folder) as url:
        sent = envelope(url, b"x" * 1_000_000 if fault is Fault.TOO_LARGE else b"{}")
        if fault in (Fault.SILENT, Fault.HANGING):
            sent = replace(sent, timeout=SHORT)
        if fault is Fault.FORBIDDEN:
            sent = replace(sent, network=Policy.PUBLIC)
        return await asyncio.wait_for(transport.send(sent), LONG)


@pytest.mark.parametrize("fault", ENDS)
async def test_a_fault_ends_as_it_does_with_every_transport(
    transport: Transport, place: Place, fault: Fault, tmp_path: Path
) -> None:
    outcome = await tried(transport, place, fault, tmp_path)
    assert (type(outcome), outcome.status) == ENDS[fault]
    assert isinstance(outcome, Failed | Rejected)
    assert outcome.reason
    assert outcome.reason.isprintable()
    assert outcome.milliseconds < LONG * 1000
    assert (isinstance(outcome, Failed) and outcome.setup) == (fault is Fault.FORBIDDEN)


async def test_what_is_taken_is_accepted(transport: Transport, place: Place, tmp_path: Path) -> None:
    outcome = await tried(transport, place, Fault.NONE, tmp_path)
    assert isinstance(outcome, Accepted)
    assert 200 <= outcome.status < 300


async def test_a_fault_leaves_nothing_behind(transport: Transport, place: Place, tmp_path: Path) -> None:
    """The next attempt begins anew, at the same transport; and it can be used after it was closed."""
    for fault in (Fault.RESET, Fault.HANGING, Fault.SILENT, Fault.BABBLING):
        assert isinstance(await tried(transport, place, fault, tmp_path), Failed)
    assert isinstance(await tried(transport, place, Fault.NONE, tmp_path), Accepted)
    await transport.close()
    assert isinstance(await tried(transport, place, Fault.NONE, tmp_path), Accepted)


async def test_a_hanging_place_keeps_nobody_else_waiting(transport: Transport, place: Place, tmp_path: Path) -> None:
    async with place(Fault.HANGING, tmp_path) as hanging, place(Fault.NONE, tmp_path) as well:
        waits = asyncio.ensure_future(transport.send(replace(envelope(hanging), timeout=LONG)))
        outcomes = [await asyncio.wait_for(transport.send(envelope(well)), LONG / 2) for _ in range(10)]
        assert not waits.done()
        waits.cancel()
    assert {type(each) for each in outcomes} == {Accepted}
