"""The webhook transport over real sockets: what is sent, to whom, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.authority import Authority
from universal_registry.client.listen import Heard, Receiver, State
from universal_registry.kernel.errors import AddressRefused
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy, check_url, classify
from universal_registry.security.signing import new_secret, parse_secret, signed_headers
from universal_registry.transports.net import Resolve, SystemNames, Way, post
from universal_registry.transports.webhook import WebhookTransport, retry_after

BOTH_LOOPS = True
LONG = 20.0
UTC = dt.UTC
NOW = dt.datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)
EVENT = (
    b'{"specversion":"1.0","id":"1.7.0","source":"/registries/1","type":"registry.alias.created.v1",'
    b'"subject":"alias/default/gs","sequence":"0000000000000007.000000","data":{}}'
)


class Held(SystemWorld):
    """The real world at one moment."""

    def now(self) -> dt.datetime:
        return NOW


class Server:
    """Answers each request with `raw`, keeping the connection; remembers what came."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.requests: list[bytes] = []
        self.peers: list[int] = []
        self.names: list[str | None] = []
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.peers.append(writer.get_extra_info("peername")[1])
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.raw)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def headers(self, index: int = -1) -> dict[str, str]:
        lines = self.requests[index].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}


@asynccontextmanager
async def serving(
    raw: bytes = b"HTTP/1.1 204 No Content\r\n\r\n", tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    server = Server(raw)
    if tls is not None:
        tls.sni_callback = lambda _sock, name, _context: server.names.append(name)  # type: ignore[func-returns-value]
    listener = await asyncio.start_server(server.handle, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await asyncio.wait_for(asyncio.gather(*server.tasks), LONG)


@asynccontextmanager
async def transporting(
    resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebhookTransport]:
    transport = WebhookTransport(SystemWorld(), resolve=resolve, tls=tls)
    try:
        yield transport
    finally:
        await transport.close()


def envelope(
    url: str, network: Policy = Policy.LOOPBACK, seconds: float = LONG, headers: Sequence[tuple[str, str]] = ()
) -> Envelope:
    fixed = (("content-type", "application/cloudevents+json"), ("user-agent", "universal-registry/0"))
    return Envelope(
        url=url, headers=(*fixed, *headers), body=EVENT, network=network, timeout=seconds, insecure_http=True
    )


def opened(transport: WebhookTransport) -> list[Any]:
    """The transport's connections."""
    assert transport._poster is not None
    return list(transport._poster._connections)


def reason_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    return outcome.reason


async def sent_to(raw: bytes, world: SystemWorld | None = None) -> Outcome:
    async with serving(raw) as server:
        transport = WebhookTransport(world or SystemWorld())
        try:
            return await transport.send(envelope(f"http://{server.host}/"))
        finally:
            await transport.close()


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_the_request_is_exactly_what_was_prepared() -> None:
    path = "/a/../b/%2e%2E/x%2Fy?sig=a%2Fb%3D&y=[1]"
    async with serving() as server, transporting() as transport:
        outcome = await transport.send(envelope(f"http://{server.host}{path}", headers=[("webhook-id", "dlv_1")]))
        assert outcome == Accepted(status=204, milliseconds=outcome.milliseconds)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == f"POST {path} HTTP/1.1".encode()
    assert body == EVENT
    assert server.headers() == {
        "host": server.host,
        "content-type": "application/cloudevents+json",
        "user-agent": "universal-registry/0",
        "webhook-id": "dlv_1",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-length": str(len(EVENT)),
    }


async def test_connections_are_kept_for_one_target_after_another() -> None:
    async with serving() as server, transporting() as transport:
        for _ in range(5):
            assert isinstance(await transport.send(envelope(f"http://{server.host}/")), Accepted)
        await asyncio.gather(*(transport.send(envelope(f"http://{server.host}/")) for _ in range(10)))
    assert len(server.requests) == 15
    assert len(server.peers) == 10


async def test_only_so_many_origins_have_their_connections_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "MOST_KEPT_ORIGINS", 1)
    async with serving() as kept, serving() as other, transporting() as transport:
        for _ in range(3):
            await transport.send(envelope(f"http://{kept.host}/"))
            await transport.send(envelope(f"http://{other.host}/"))
    assert (len(kept.peers), len(other.peers)) == (1, 3)
    assert other.headers()["connection"] == "close"


async def test_it_can_be_used_again_after_it_was_closed() -> None:
    async with serving() as server, transporting() as transport:
        await transport.send(envelope(f"http://{server.host}/"))
        await transport.close()
        assert isinstance(await transport.send(envelope(f"http://{server.host}/")), Accepted)


async def test_neither_proxies_nor_cookies_nor_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", os.fspath(tmp_path / "netrc"))
    raw = b"HTTP/1.1 204 No Content\r\nset-cookie: a=b; path=/\r\n\r\n"
    async with serving(raw) as server, transporting() as transport:
        for _ in range(2):
            assert isinstance(await transport.send(envelope(f"http://{server.host}/")), Accepted)
        assert not {"cookie", "authorization", "proxy-authorization"} & server.headers().keys()


async def test_a_signed_delivery_arrives_at_a_receiver_and_is_verified() -> None:
    world, heard = SystemWorld(), list[Heard]()
    secret = new_secret(world)
    receiver = Receiver(world=world, secrets=[secret], on_event=heard.append)
    host, port = await receiver.start("127.0.0.1", 0)
    signed = signed_headers([parse_secret(secret)], "dlv_1", int(world.now().timestamp()), EVENT)
    forged = signed_headers([parse_secret(new_secret(world))], "dlv_2", int(world.now().timestamp()), EVENT)
    async with transporting() as transport:
        taken = await transport.send(envelope(f"http://{host}:{port}/", headers=list(signed.items())))
        refused = await transport.send(envelope(f"http://{host}:{port}/", headers=list(forged.items())))
    await receiver.stop()
    assert isinstance(taken, Accepted)
    assert reason_of(refused) == "401 Unauthorized: no signature matches"
    assert [one.state for one in heard] == [State.RECEIVED, State.REFUSED]
    assert heard[0].subject == "alias/default/gs"
    assert heard[0].verified


@pytest.mark.parametrize(
    "header", [("x-a", "b\r\nx-c: d"), ("x-a", "b\nx"), ("x-a\r\n", "b"), ("x-a", "b\0c"), ("x-a", "b\r")]
)
async def test_a_header_cannot_become_two(header: tuple[str, str]) -> None:
    async with serving() as server, transporting() as transport:
        outcome = await transport.send(envelope(f"http://{server.host}/", headers=[header]))
        assert reason_of(outcome) == "a header to be sent holds a line break"
    assert server.requests == []


async def test_a_kept_connection_that_the_far_side_closed_meanwhile_is_not_used() -> None:
    async with serving() as server, transporting() as transport:
        assert isinstance(await transport.send(envelope(f"http://{server.host}/")), Accepted)
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        server.tasks.clear()
        for connection in opened(transport):
            await asyncio.wait_for(connection.lost, LONG)
        assert isinstance(await transport.send(envelope(f"http://{server.host}/")), Accepted)
    assert len(server.peers) == 2


async def test_what_rests_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "KEEP_ALIVE_SECONDS", 0.01)
    async with serving() as server, transporting() as transport:
        assert isinstance(await transport.send(envelope(f"http://{server.host}/")), Accepted)
        await asyncio.wait_for(asyncio.gather(*server.tasks), LONG)  # the far side sees it end
        assert opened(transport) == []


# --- what becomes of the answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_accepted(status: int) -> None:
    outcome = await sent_to(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
    assert isinstance(outcome, Accepted)
    assert outcome.status == status


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: u\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ],
)
async def test_an_answer_may_come_in_pieces(raw: bytes) -> None:
    """Cut anywhere: it is taken whole, and the connection goes on."""
    async with transporting() as transport:
        for cut in range(1, len(raw)):
            async with pieces(raw[:cut], raw[cut:]) as (host, connections):
                for _ in range(2):
                    assert isinstance(await transport.send(envelope(f"http://{host}/")), Accepted)
                assert len(connections) == 1
            await transport.close()


@asynccontextmanager
async def pieces(*parts: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A server whose answers come in these parts, each in a turn of its own."""
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(EVENT)
                for part in parts:
                    writer.write(part)
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}", connections
    finally:
        listener.close()


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(EVENT)
        writer.write(b"HTTP/1.1 503 Busy\r\n\r\nhalf an ")
        await writer.drain()
        writer.write(b"hour")
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with transporting() as transport:
        outcome = await transport.send(envelope(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"))
    listener.close()
    assert reason_of(outcome) == "503 Service Unavailable: half an hour"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_rejected(status: int) -> None:
    outcome = await sent_to(b"HTTP/1.1 %d X\r\ncontent-length: 7\r\n\r\nno way!" % status)
    assert isinstance(outcome, Rejected)
    assert outcome.status == status
    assert outcome.reason.endswith(": no way!")


@pytest.mark.parametrize("status", [304, 401, 403, 404, 408, 410, 418, 429, 499, 500, 503, 599])
async def test_failed(status: int) -> None:
    outcome = await sent_to(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
    assert reason_of(outcome).split(",")[0] != ""
    assert isinstance(outcome, Failed)
    assert outcome.status == status
    assert outcome.retry_after is None


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", ["30", "Sun, 06 Nov 1994 08:49:37 GMT"])
async def test_the_targets_own_wish_is_told(status: int, value: str) -> None:
    raw = f"HTTP/1.1 {status} X\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n"
    outcome = await sent_to(raw.encode(), Held())
    assert isinstance(outcome, Failed)
    assert outcome.retry_after == dt.timedelta(seconds=30)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("99999999999999999999999999", 86400),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30),
        ("Sun Nov  6 08:49:37 1994", 30),
        ("Sun, 06 Nov 1994 08:48:60 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:06 GMT", 0),
        ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
        ("Wed, 06 Nov 2044 08:49:37 GMT", 86400),
        ("Wednesday, 06-Nov-44 08:49:37 GMT", 86400),
        ("Sunday, 06-Nov-45 08:49:37 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("٣٠", None),
        ("soon", None),
        ("Sun, 31 Feb 1995 08:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 25:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +0100", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("1" * 10_000, 86400),
        ("x" * 10_000, None),
    ],
)
def test_retry_after(value: str, seconds: int | None) -> None:
    assert retry_after(value, NOW) == (None if seconds is None else dt.timedelta(seconds=seconds))


# --- who may be connected to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Policy.PUBLIC, Policy.PRIVATE])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "mine.localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1"]
)
async def test_this_machine_is_refused_to_others_in_every_spelling(policy: Policy, host: str) -> None:
    async with serving() as server, transporting() as transport:
        reason = reason_of(await transport.send(envelope(f"http://{host}:{server.port}/", policy)))
        assert "127.0.0.0/8 (this machine)" in reason
        assert "--network loopback" in reason
    assert server.peers == []


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[::127.0.0.1]"])
async def test_and_in_every_form_of_ipv6(host: str) -> None:
    async with transporting() as transport:
        reason = reason_of(await transport.send(envelope(f"http://{host}:9/", Policy.PRIVATE)))
        assert "this machine" in reason


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "[::]", "224.0.0.1", "2852039166"])
async def test_some_addresses_are_refused_to_everybody(policy: Policy, host: str) -> None:
    async with transporting() as transport:
        assert "never connected to" in reason_of(await transport.send(envelope(f"https://{host}/", policy)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "mine.localhost", "2130706433", "0x7f.1"])
async def test_this_machine_is_reached_when_it_is_allowed(host: str) -> None:
    async with serving() as server, transporting() as transport:
        assert isinstance(await transport.send(envelope(f"http://{host}:{server.port}/")), Accepted)


async def test_ipv6() -> None:
    try:
        async with serving(host="::1") as server, transporting() as transport:
            for host in ("[::1]", "localhost"):  # the name's first address refuses, the second one takes it
                url = f"http://{host}:{server.port}/"
                assert isinstance(await transport.send(envelope(url)), Accepted)
                assert server.headers()["host"] == f"{host}:{server.port}"
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")


class Answers:
    """A resolver that answers one list after another, and the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def own_address() -> Iterator[str]:
    """An address of this machine that is not loopback: its own, or one that it is given for the test."""
    address = "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # asking the routing table sends nothing
        address = str(probe.getsockname()[0])
    if classify(ipaddress.ip_address(address)).reach in (Policy.PUBLIC, Policy.PRIVATE):
        yield address
        return
    given = f"10.231.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("this machine has no private or public address, and may not be given one")
    subprocess.run(["ip", "addr", "add", f"{given}/32", "dev", "lo"], check=True)
    try:
        yield given
    finally:
        subprocess.run(["ip", "addr", "del", f"{given}/32", "dev", "lo"], check=True)


async def test_a_name_that_is_rebound_to_this_machine_is_refused(own_address: str) -> None:
    """A good address at first, loopback afterwards: each attempt resolves, checks and connects to one and the same."""
    names = Answers([own_address], ["127.0.0.1"])
    closing = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    async with serving(closing, host="0.0.0.0") as server, transporting(names) as transport:
        made = envelope(f"http://hook.example:{server.port}/", Policy.PRIVATE)
        assert isinstance(await transport.send(made), Accepted)
        assert names.asked == ["hook.example"]
        assert "hook.example: 127.0.0.1 is in 127.0.0.0/8" in reason_of(await transport.send(made))
        assert names.asked == ["hook.example"] * 2
    assert len(server.requests) == len(server.peers) == 1


async def test_a_name_that_was_good_before_is_checked_anew() -> None:
    names = Answers(["127.0.0.1"], ["127.0.0.1", "169.254.169.254"])
    closing = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    async with serving(closing) as server, transporting(names) as transport:
        made = envelope(f"http://hook.example:{server.port}/")
        assert isinstance(await transport.send(made), Accepted)
        assert "169.254.169.254 is in 169.254.169.254/32 (cloud metadata)" in reason_of(await transport.send(made))
    assert len(server.peers) == 1


async def test_the_socket_itself_is_held_to_the_policy() -> None:
    """Behind the checks of URL and names stands a third one, on what a socket is opened for."""
    async with serving() as server:
        way = Way(check_url(f"http://{server.host}/"), Policy.PUBLIC, None)
        with pytest.raises(AddressRefused, match="this machine"):
            await way.connect(["127.0.0.1"], asyncio.Protocol, asyncio.get_running_loop().time() + LONG)
    assert server.peers == []


@pytest.mark.parametrize("answers", [["93.184.215.14", "127.0.0.1"], ["127.0.0.1", "93.184.215.14"]])
async def test_a_mixed_answer_is_refused_as_a_whole(answers: list[str]) -> None:
    async with serving() as server, transporting(Answers(answers)) as transport:
        outcome = await transport.send(envelope(f"http://mixed.example:{server.port}/", Policy.PUBLIC))
        assert "127.0.0.1 is in" in reason_of(outcome)
    assert server.peers == []


@pytest.mark.parametrize(
    "answer", ["not-an-address", "127.0.0.1; x", "", "2130706433", "fe80::1%eth0", "::ffff:7f00:1"]
)
async def test_whatever_a_resolver_says_must_be_a_good_address(answer: str) -> None:
    async with transporting(Answers([answer])) as transport:
        outcome = await transport.send(envelope("https://odd.example/", Policy.PUBLIC))
        assert reason_of(outcome).startswith("odd.example: ")


async def test_the_socket_goes_to_the_checked_address_and_the_name_stays_in_the_request() -> None:
    async with serving() as server, transporting(Answers(["127.0.0.1"])) as transport:
        assert isinstance(await transport.send(envelope(f"http://hook.example:{server.port}/")), Accepted)
        assert server.headers()["host"] == f"hook.example:{server.port}"


async def test_a_kept_connection_is_checked_against_the_policy_of_who_uses_it() -> None:
    """Two targets with one name and two policies: what one may use, the other may not."""
    async with serving() as server, transporting(Answers(["127.0.0.1"])) as transport:
        url = f"http://shared.example:{server.port}/"
        assert isinstance(await transport.send(envelope(url)), Accepted)
        assert "127.0.0.0/8" in reason_of(await transport.send(envelope(url, Policy.PUBLIC)))
        assert isinstance(await transport.send(envelope(url)), Accepted)
    assert len(server.requests) == 2


async def test_where_a_name_leads_is_asked_again_although_connections_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(post, "VOUCHED_SECONDS", 0.0)
    names = Answers(["127.0.0.1"], ["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "169.254.169.254"])
    async with serving(host="0.0.0.0") as server, transporting(names) as transport:
        made = envelope(f"http://hook.example:{server.port}/")
        for connections in (1, 1, 2):  # the same address, and the connection is used on; another one, and it is not
            assert isinstance(await transport.send(made), Accepted)
            assert len(server.peers) == connections
        assert "cloud metadata" in reason_of(await transport.send(made))
    assert len(names.asked) == 4
    assert len(server.requests) == 3


async def test_what_was_asked_a_moment_ago_is_not_asked_again() -> None:
    names = Answers(["127.0.0.1"])
    async with serving() as server, transporting(names) as transport:
        for _ in range(5):
            assert isinstance(await transport.send(envelope(f"http://hook.example:{server.port}/")), Accepted)
    assert names.asked == ["hook.example"]


async def test_a_black_hole_among_the_addresses_of_a_name_does_not_cost_the_attempt() -> None:
    loop = asyncio.get_running_loop()
    async with serving() as server, transporting(Answers(["127.0.0.2", "127.0.0.1"])) as transport:
        with contextlib.ExitStack() as stack:
            hole = stack.enter_context(socket.socket())
            hole.bind(("127.0.0.2", server.port))
            hole.listen(0)
            for _ in range(4):  # the queue of a listener that never accepts; beyond it nothing is answered
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await loop.sock_connect(waiting, hole.getsockname())
            outcome = await transport.send(envelope(f"http://hook.example:{server.port}/", seconds=1.0))
    assert isinstance(outcome, Accepted)


async def test_cleartext_to_a_local_name_stays_on_this_machine() -> None:
    """`http://x.localhost` was let in as loopback: a resolver that leads it away is refused."""
    async with transporting(Answers(["10.0.0.1"])) as transport:
        outcome = await transport.send(replace(envelope("http://x.localhost/"), insecure_http=False))
        assert "cleartext beyond this machine" in reason_of(outcome)


async def test_a_name_without_an_address() -> None:
    async with transporting(Answers([])) as transport:
        outcome = await transport.send(envelope("http://void.example/"))
        assert reason_of(outcome) == "the name void.example cannot be resolved: it has no address"


@pytest.mark.parametrize(
    "url", ["", "ftp://x/", "http://", "http://u:p@x/", "http://x/#f", "http://x:0/", "http://[x]/"]
)
async def test_a_url_that_is_none_is_an_outcome_too(url: str) -> None:
    async with transporting() as transport:
        assert "fault of ours" not in reason_of(await transport.send(envelope(url)))


# --- the system's resolver --------------------------------------------------------------------------------------------


async def test_a_name_that_hangs_costs_one_look_up_and_no_more_than_the_deadline() -> None:
    go, asked = threading.Event(), list[str]()

    def look_up(host: str) -> list[str]:
        asked.append(host)
        go.wait(LONG)
        return ["127.0.0.1"]

    async with serving() as server, transporting(SystemNames(look_up)) as transport:
        url = f"http://slow.example:{server.port}/"
        outcomes = await asyncio.gather(*(transport.send(envelope(url, seconds=0.2)) for _ in range(5)))
        assert {reason_of(one) for one in outcomes} == {"the name slow.example was not resolved within 0.2 s"}
        waiting = asyncio.create_task(transport.send(envelope(url)))
        await asyncio.sleep(0)
        go.set()
        assert isinstance(await waiting, Accepted)  # the look-up that was under way serves who still waits
        assert asked == ["slow.example"]
        await transport.send(envelope(url.replace("slow.", "other."), seconds=LONG))
        assert asked == ["slow.example", "other.example"]


async def test_look_ups_at_once_are_limited_and_each_gets_its_turn() -> None:
    running, most, lock = [0], [0], threading.Lock()
    gate = threading.Barrier(2)

    def look_up(host: str) -> list[str]:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(LONG)
        with lock:
            running[0] -= 1
        return [f"192.0.2.{host}"]

    names = SystemNames(look_up, most=2)
    found = await asyncio.gather(*(names(str(number)) for number in range(6)))
    assert found == [[f"192.0.2.{number}"] for number in range(6)]
    assert most == [2]


async def test_a_look_up_that_fails_is_told_to_all_who_wait_and_tried_again_later() -> None:
    asked = list[str]()

    def look_up(host: str) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with transporting(SystemNames(look_up)) as transport:
        outcomes = await asyncio.gather(*(transport.send(envelope("http://nobody.example/")) for _ in range(3)))
        wanted = "the name nobody.example cannot be resolved: name or service not known"
        assert {reason_of(one) for one in outcomes} == {wanted}
        before = len(asked)
        await transport.send(envelope("http://nobody.example/"))
    assert (before, len(asked)) == (1, 2)


async def test_local_names_are_asked_of_nobody() -> None:
    def look_up(host: str) -> list[str]:
        raise AssertionError(host)

    assert await SystemNames(look_up)("localhost") == ("127.0.0.1", "::1")
    assert await SystemNames(look_up)("app.localhost") == ("127.0.0.1", "::1")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_tls_with_the_name_kept_for_certificate_sni_and_host(authority: Authority) -> None:
    tls = authority.server("hook.example")
    async with serving(tls=tls) as server, transporting(Answers(["127.0.0.1"]), authority.trusting()) as transport:
        for _ in range(2):
            assert isinstance(await transport.send(envelope(f"https://hook.example:{server.port}/")), Accepted)
        assert server.headers()["host"] == f"hook.example:{server.port}"
        assert server.names == ["hook.example"]


async def test_tls_to_an_address(authority: Authority) -> None:
    tls = authority.server("127.0.0.1")
    async with serving(tls=tls) as server, transporting(tls=authority.trusting()) as transport:
        assert isinstance(await transport.send(envelope(f"https://127.0.0.1:{server.port}/")), Accepted)


@pytest.mark.parametrize(
    ("host", "days", "own", "meaning"),
    [
        ("hook.example", (-30, -1), False, "has expired"),
        ("hook.example", (1, 30), False, "is not valid yet"),
        ("other.example", (-1, 30), False, "is for another name"),
        ("hook.example", (-1, 30), True, "is signed by itself"),
    ],
)
async def test_a_bad_certificate(
    authority: Authority, host: str, days: tuple[int, int], own: bool, meaning: str
) -> None:
    tls = authority.server(host, days=days, own=own)
    async with serving(tls=tls) as server, transporting(Answers(["127.0.0.1"]), authority.trusting()) as transport:
        name = f"hook.example:{server.port}"
        assert reason_of(await transport.send(envelope(f"https://{name}/"))) == f"the certificate of {name} {meaning}"
    assert server.requests == []


async def test_an_unknown_authority_by_default(authority: Authority) -> None:
    async with serving(tls=authority.server("127.0.0.1")) as server, transporting() as transport:
        outcome = await transport.send(envelope(f"https://{server.host}/"))
        wanted = f"the certificate of {server.host} is signed by an authority that is not known here"
        assert reason_of(outcome) == wanted


async def test_tls_to_a_target_that_speaks_none() -> None:
    listener = await asyncio.start_server(_says_http, "127.0.0.1", 0)
    host = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with transporting() as transport:
        outcome = await transport.send(envelope(f"https://{host}/"))
    listener.close()
    assert reason_of(outcome) == f"{host} does not speak TLS"


async def _says_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_cleartext_to_a_target_that_speaks_tls(authority: Authority) -> None:
    async with serving(tls=authority.server("127.0.0.1")) as server, transporting() as transport:
        reason = reason_of(await transport.send(envelope(f"http://{server.host}/")))
        assert "is not HTTP" in reason or "closed the connection" in reason or "reset" in reason


async def test_a_handshake_that_hangs_is_cut() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        gone.set()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    host = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with transporting() as transport:
        outcome = await transport.send(envelope(f"https://{host}/", seconds=0.3))
    assert reason_of(outcome) == f"no connection to {host} within 0.3 s"
    await asyncio.wait_for(gone.wait(), LONG)
    listener.close()


async def test_cleartext_leaves_the_machine_only_where_the_envelope_says_so() -> None:
    transport = WebhookTransport(SystemWorld())
    try:
        plain = Envelope(url="http://hooks.example.test/", headers=(), body=EVENT, network=Policy.PUBLIC, timeout=LONG)
        outcome = await transport.send(plain)
    finally:
        await transport.close()
    assert "insecure-http" in reason_of(outcome)
