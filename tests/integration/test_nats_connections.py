"""Connections of the NATS transport: TLS, checked addresses, and which of them are kept for how long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from msgspec.structs import replace

from tests.authority import Authority
from tests.natsserver import NatsServer
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy
from universal_registry.transports import nats as transport_module
from universal_registry.transports.nats import NatsTransport
from universal_registry.transports.net import Resolve

BOTH_LOOPS = True
LONG = 20.0
NAME = "bus.example"
USERS = 'authorization { users: [ {user: a, password: "geheim-1"}, {user: b, password: "geheim-2"} ] }'


def leads_to(*addresses: str) -> Resolve:
    async def resolve(_: str) -> Sequence[str]:
        return addresses

    return resolve


@asynccontextmanager
async def transporting(
    resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[NatsTransport]:
    transport = NatsTransport(SystemWorld(), resolve=resolve, tls=tls)
    try:
        yield transport
    finally:
        await transport.close()


def envelope(url: str, *, credential: str | None = None, seconds: float = LONG) -> Envelope:
    return Envelope(
        url=url, headers=(("Nats-Msg-Id", "m1"),), body=b"{}", network=Policy.LOOPBACK, timeout=seconds,
        insecure_http=True, subject="ureg.a", credential=credential,
    )  # fmt: skip


def reason_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    return outcome.reason


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.contextmanager
def serving(folder: Path, config: str = "") -> Iterator[NatsServer]:
    server = NatsServer(folder, config)
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def serving_tls(folder: Path, pem: Path) -> Iterator[NatsServer]:
    with serving(folder, f'tls {{ cert_file: "{pem}", key_file: "{pem}" }}') as server:
        yield server


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls_to_a_server_with_a_good_certificate(authority: Authority, tmp_path: Path) -> None:
    with serving_tls(tmp_path, authority.pem(NAME)) as server:
        trusting = authority.trusting()
        client = await nats.connect(f"tls://127.0.0.1:{server.port}", tls=trusting, tls_hostname=NAME)
        await client.jetstream().add_stream(name="UREG", subjects=["ureg.>"])
        async with transporting(leads_to("127.0.0.1"), trusting) as transport:
            first = await transport.send(envelope(f"tls://{NAME}:{server.port}/ureg"))
            again = await transport.send(envelope(f"tls://{NAME}:{server.port}/ureg"))
        assert isinstance(first, Accepted)
        assert isinstance(again, Accepted)
        assert (await client.jetstream().stream_info("UREG")).state.messages == 1
        await client.close()


@pytest.mark.parametrize(
    ("host", "days", "own", "meaning"),
    [
        (NAME, (-30, -1), False, "has expired"),
        (NAME, (1, 30), False, "is not valid yet"),
        ("other.example", (-1, 30), False, "is for another name"),
        (NAME, (-1, 30), True, "is signed by itself"),
    ],
)
async def test_a_bad_certificate(
    authority: Authority, tmp_path: Path, host: str, days: tuple[int, int], own: bool, meaning: str
) -> None:
    with serving_tls(tmp_path, authority.pem(host, days=days, own=own)) as server:
        name = f"{NAME}:{server.port}"
        async with transporting(leads_to("127.0.0.1"), authority.trusting()) as transport:
            outcome = await transport.send(envelope(f"tls://{name}/ureg"))
        assert reason_of(outcome) == f"the certificate of {name} {meaning}"


async def test_an_unknown_authority_by_default(authority: Authority, tmp_path: Path) -> None:
    with serving_tls(tmp_path, authority.pem("127.0.0.1")) as server:
        async with transporting() as transport:
            outcome = await transport.send(envelope(f"tls://127.0.0.1:{server.port}/ureg"))
        wanted = f"the certificate of 127.0.0.1:{server.port} is signed by an authority that is not known here"
        assert reason_of(outcome) == wanted


async def test_a_server_that_asks_for_tls_gets_nothing_in_clear(authority: Authority, tmp_path: Path) -> None:
    with serving_tls(tmp_path, authority.pem(NAME)) as server:
        async with transporting() as transport:
            outcome = await transport.send(envelope(f"nats://127.0.0.1:{server.port}/ureg"))
        assert reason_of(outcome) == f"127.0.0.1:{server.port}: it asks for TLS: use tls:// instead of nats://"
        assert isinstance(outcome, Failed)
        assert outcome.setup


async def test_tls_left_out_by_whoever_is_on_the_way_does_not_get_the_password() -> None:
    """The first line of a server is in clear, so anybody can take `tls_required` out of it."""
    async with pretending(b'INFO {"headers":true,"max_payload":1048576}\r\n') as (port, heard):
        async with transporting(tls=ssl.create_default_context()) as transport:
            outcome = await transport.send(envelope(f"tls://127.0.0.1:{port}/ureg", credential="u:geheim-1"))
        assert "does not ask for TLS" in reason_of(outcome)
        assert await heard() == b""


@asynccontextmanager
async def pretending(first: bytes) -> AsyncIterator[tuple[int, object]]:
    """A server that says so, and notes what it is told until the other side ends it."""
    done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        told = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                told += piece
        writer.close()
        if not done.done():
            done.set_result(told)

    async def heard() -> bytes:
        return await asyncio.wait_for(done, LONG)

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], heard
    finally:
        listener.close()


# --- addresses --------------------------------------------------------------------------------------------------------


async def test_a_black_hole_among_the_addresses_of_a_name_does_not_cost_the_attempt(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with serving(tmp_path) as server, contextlib.ExitStack() as stack:
        await server.make_stream()
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.2", server.port))
        hole.listen(0)
        for _ in range(4):  # the queue of a listener that never accepts; beyond it nothing is answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await loop.sock_connect(waiting, hole.getsockname())
        async with transporting(leads_to("127.0.0.2", "127.0.0.1")) as transport:
            outcome = await transport.send(envelope(f"nats://{NAME}:{server.port}/ureg", seconds=2.0))
    assert isinstance(outcome, Accepted)


async def test_a_name_that_leads_to_one_bad_address_is_not_connected_to(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        await server.make_stream()
        async with transporting(leads_to("127.0.0.1", "169.254.169.254")) as transport:
            outcome = await transport.send(envelope(f"nats://{NAME}:{server.port}/ureg"))
        assert "169.254.169.254" in reason_of(outcome)
        assert await server.messages() == []


async def test_other_servers_that_one_names_are_not_followed(tmp_path: Path) -> None:
    """`connect_urls` of the first line: an address that nobody has checked."""
    with serving(tmp_path) as server:
        await server.make_stream()
        first = {"headers": True, "max_payload": 1 << 20, "connect_urls": [f"127.0.0.1:{server.port}"]}
        async with pretending(b"INFO %s\r\n" % json.dumps(first).encode()) as (port, _), transporting() as transport:
            outcome = await transport.send(envelope(f"nats://127.0.0.1:{port}/ureg", seconds=1.0))
        assert isinstance(outcome, Failed)
        assert await server.messages() == []


# --- what is kept -----------------------------------------------------------------------------------------------------


async def connections(server: NatsServer) -> list[str]:
    """The users that are connected, as the server sees it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.monitor)
    writer.write(b"GET /connz?auth=true HTTP/1.0\r\n\r\n")
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return sorted(str(each.get("authorized_user", "")) for each in json.loads(body)["connections"])


async def until_connected(server: NatsServer, wanted: list[str]) -> None:
    """The server has no other way to say who is gone than to be asked."""
    async with asyncio.timeout(LONG):
        while await connections(server) != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_connection_is_shared_and_the_one_of_an_old_credential_goes(tmp_path: Path) -> None:
    with serving(tmp_path, USERS) as server:
        await server.make_stream(user="a", password="geheim-1")
        url = server.url()
        async with transporting() as transport:
            for _ in range(3):
                assert isinstance(await transport.send(envelope(url, credential="a:geheim-1")), Accepted)
            assert await connections(server) == ["a"]
            assert isinstance(await transport.send(envelope(url, credential="b:geheim-2")), Accepted)
            await until_connected(server, ["b"])
            assert isinstance(await transport.send(envelope(url, credential="a:geheim-1")), Accepted)
            assert await connections(server) == ["a", "b"]  # two targets may well be two users
        await until_connected(server, [])


async def test_what_rests_too_long_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "IDLE_SECONDS", 0.01)
    with serving(tmp_path) as server:
        await server.make_stream()
        async with transporting() as transport:
            assert isinstance(await transport.send(envelope(server.url())), Accepted)
            await until_connected(server, [])
            assert isinstance(await transport.send(envelope(server.url())), Accepted)


async def test_of_too_many_the_one_used_longest_ago_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "MOST_KEPT", 2)
    with contextlib.ExitStack() as stack:
        servers = []
        for name in "abc":
            (tmp_path / name).mkdir()
            servers.append(stack.enter_context(serving(tmp_path / name)))
            await servers[-1].make_stream()
        first, second, third = servers
        async with transporting() as transport:
            for server in (first, second, first, third):
                assert isinstance(await transport.send(envelope(server.url())), Accepted)
            await until_connected(second, [])
            assert [len(await connections(each)) for each in (first, third)] == [1, 1]
            assert isinstance(await transport.send(envelope(second.url())), Accepted)


async def test_closing_waits_for_no_server_that_has_stopped_reading(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        await server.make_stream()
        async with transporting() as transport:
            assert isinstance(await transport.send(envelope(server.url())), Accepted)
            server.freeze()
            try:
                large = replace(envelope(server.url(), seconds=0.3), body=b"x" * 1_000_000)
                outcomes = await asyncio.gather(*(transport.send(large) for _ in range(20)))
                assert {type(each) for each in outcomes} == {Failed}
                await asyncio.wait_for(transport.close(), LONG)
            finally:
                server.thaw()
