"""Targets that hang, lie, flood and break off. Each attempt ends in time, with one plain reason, and leaks nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome, Rejected
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy
from universal_registry.transports.net import post
from universal_registry.transports.net.connection import MOST_INTERIM
from universal_registry.transports.webhook import WebhookTransport

SHORT = 0.3
BOTH_LOOPS = True
LONG = 20.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
BODY = b'{"specversion":"1.0","data":{"token":"a-secret-of-some-length"}}'
MIB = 1 << 20


class Far:
    """One connection as the far side sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.requests = 0
        self.sent = 0

    async def request(self) -> bool:
        """Read the next request; False when there is none any more."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        await self.reader.readexactly(length)
        self.requests += 1
        return True

    async def gone(self) -> None:
        """Until the near side has dropped the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    async def pour(self, piece: bytes) -> None:
        """Send the piece again and again until the near side has had enough."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.writer.write(piece)
                await self.writer.drain()
                self.sent += len(piece)

    async def drip(self, raw: bytes) -> None:
        """One byte every 20 ms, until the near side has had enough."""
        loop, left = asyncio.get_running_loop(), list(raw)

        def drop() -> None:
            if left and not self.writer.transport.is_closing():
                self.writer.write(bytes([left.pop(0)]))
                loop.call_later(0.02, drop)

        drop()
        await self.gone()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Far], Awaitable[None]]


class Server:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections: list[Far] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        far = Far(reader, writer)
        self.connections.append(far)
        try:
            with contextlib.suppress(ConnectionError):
                await self.script(far)
        finally:
            writer.close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook"


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """A server that runs the script on each connection. At the end each script must end: no connection is left over."""
    server = Server(script)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
        async with asyncio.timeout(LONG):
            await asyncio.gather(*server.tasks)
    finally:
        listener.close()
        for far in server.connections:
            far.writer.transport.abort()


@asynccontextmanager
async def attempting(script: Script) -> AsyncIterator[tuple[WebhookTransport, Server]]:
    async with serving(script) as server:
        transport = WebhookTransport(SystemWorld())
        try:
            yield transport, server
        finally:
            await transport.close()


def envelope(url: str, *, seconds: float = LONG, body: bytes = BODY) -> Envelope:
    headers = (("content-type", "application/json"), ("webhook-id", "dlv_1"), ("webhook-signature", "v1,c2lnbmF0dXJl"))
    return Envelope(url=url, headers=headers, body=body, network=Policy.LOOPBACK, timeout=seconds)


def answering(raw: bytes) -> Script:
    """Reads one request, sends these bytes, and hangs up."""

    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(raw)
        await far.writer.drain()

    return script


def keeping(raw: bytes) -> Script:
    """Answers each request with these bytes, and waits for more."""

    async def script(far: Far) -> None:
        while await far.request():
            far.writer.write(raw)

    return script


def reason_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    assert outcome.reason.isprintable()
    assert 0 < len(outcome.reason) < 500
    return outcome.reason


# --- hanging, in each phase -------------------------------------------------------------------------------------------


async def says_nothing(far: Far) -> None:
    await far.gone()


async def half_a_head(far: Far) -> None:
    await far.request()
    far.writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
    await far.gone()


async def half_a_body(far: Far) -> None:
    await far.request()
    far.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await far.gone()


async def dripping_head(far: Far) -> None:
    await far.request()
    await far.drip(b"HTTP/1.1 200 OK\r\nx-slow: " + b"." * 1000)


async def dripping_body(far: Far) -> None:
    await far.request()
    far.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    await far.drip(b"." * 1000)


async def dripping_chunks(far: Far) -> None:
    await far.request()
    far.writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    await far.drip(b"1\r\n.\r\n" * 200)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (says_nothing, "no answer from {host} within 0.3 s"),
        (half_a_head, "no answer from {host} within 0.3 s"),
        (dripping_head, "no answer from {host} within 0.3 s"),
        (half_a_body, "the answer of {host} was not complete within 0.3 s"),
        (dripping_body, "the answer of {host} was not complete within 0.3 s"),
        (dripping_chunks, "the answer of {host} was not complete within 0.3 s"),
    ],
)
async def test_one_deadline_cuts_every_phase(script: Script, reason: str) -> None:
    async with attempting(script) as (transport, server):
        outcome = await transport.send(envelope(server.url, seconds=SHORT))
        assert reason_of(outcome) == reason.format(host=server.host)
        assert SHORT * 1000 - 10 <= outcome.milliseconds < 5000  # timers are a little coarse


async def test_a_connection_that_is_never_made_is_cut_too() -> None:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue of a listener that never accepts; beyond it nothing is answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await loop.sock_connect(waiting, full.getsockname())
        host = f"127.0.0.1:{full.getsockname()[1]}"
        transport = WebhookTransport(SystemWorld())
        outcome = await transport.send(envelope(f"http://{host}/", seconds=SHORT))
        await transport.close()
    assert reason_of(outcome) == f"no connection to {host} within 0.3 s"


async def test_a_target_that_does_not_read_is_dropped_and_not_waited_for() -> None:
    """Closing politely would keep the unsent megabytes, and the socket, for as long as the far side likes."""
    dropped, arrived = asyncio.Event(), []

    async def script(far: Far) -> None:
        far.writer.transport.pause_reading()
        await dropped.wait()
        far.writer.transport.resume_reading()
        while piece := await far.reader.read(1 << 16):
            arrived.append(len(piece))

    async with attempting(script) as (transport, server):
        outcome = await transport.send(envelope(server.url, seconds=SHORT, body=b"x" * (64 * MIB)))
        assert reason_of(outcome) == f"no answer from {server.host} within 0.3 s"
        dropped.set()
    assert 0 < sum(arrived) < 32 * MIB  # what the system's buffers had taken


async def test_giving_up_an_attempt_drops_its_connection() -> None:
    arrived = asyncio.Event()

    async def script(far: Far) -> None:
        await far.request()
        arrived.set()
        await far.gone()

    async with attempting(script) as (transport, server):
        sending = asyncio.create_task(transport.send(envelope(server.url)))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


# --- breaking off -----------------------------------------------------------------------------------------------------


async def resets_at_once(far: Far) -> None:
    far.reset()


async def resets_after_the_request(far: Far) -> None:
    await far.request()
    far.reset()


async def resets_within_the_body(far: Far) -> None:
    await far.request()
    far.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await far.writer.drain()
    far.reset()


async def closes_its_half(far: Far) -> None:
    await far.request()
    far.writer.write_eof()
    await far.gone()


@pytest.mark.parametrize("script", [resets_at_once, resets_after_the_request, resets_within_the_body])
async def test_a_reset(script: Script) -> None:
    async with attempting(script) as (transport, server):
        reason = reason_of(await transport.send(envelope(server.url)))
        assert reason in (
            f"connection reset by {server.host}",
            f"the answer of {server.host} broke off",
            f"{server.host} closed the connection without an answer",
        )


async def test_hanging_up_without_an_answer() -> None:
    for script in (closes_its_half, answering(b""), answering(b"HTTP/1.1 200 OK\r\ncontent-")):
        async with attempting(script) as (transport, server):
            reason = reason_of(await transport.send(envelope(server.url)))
            assert reason == f"{server.host} closed the connection without an answer"


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        transport = WebhookTransport(SystemWorld())
        assert reason_of(await transport.send(envelope(f"http://{host}/"))) == f"connection refused by {host}"
        await transport.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nten",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
    ],
)
async def test_an_acceptance_that_breaks_off_is_none(raw: bytes) -> None:
    async with attempting(answering(raw)) as (transport, server):
        outcome = await transport.send(envelope(server.url))
        assert reason_of(outcome) in (
            f"the answer of {server.host} broke off",
            f"the answer of {server.host} is not HTTP: invalid character in chunk size",
        )


async def test_a_refusal_that_breaks_off_is_one_all_the_same() -> None:
    raw = b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 100\r\n\r\nno such field"
    async with attempting(answering(raw)) as (transport, server):
        outcome = await transport.send(envelope(server.url))
        assert isinstance(outcome, Rejected)
        assert outcome.reason.endswith(": no such field")


# --- no HTTP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff\xfe garbage \x1b[2J\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-long: " + b"y" * MIB + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * MIB + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-many: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_or_beyond_its_measure(raw: bytes) -> None:
    async with attempting(answering(raw)) as (transport, server):
        reason = reason_of(await transport.send(envelope(server.url)))
        assert reason.startswith(f"the answer of {server.host} is not HTTP")
        assert "yyyy" not in reason


async def test_headers_without_end() -> None:
    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(b"HTTP/1.1 200 OK\r\n")
        await far.pour(b"x-more: and more\r\n" * 100)

    async with attempting(script) as (transport, server):
        assert "is not HTTP" in reason_of(await transport.send(envelope(server.url)))
    assert server.connections[0].sent < 8 * MIB  # what the system's buffers take


async def test_interim_answers_without_end() -> None:
    async def script(far: Far) -> None:
        await far.request()
        await far.pour(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    async with attempting(script) as (transport, server):
        reason = reason_of(await transport.send(envelope(server.url)))
        assert reason == f"no answer from {server.host}: more than {MOST_INTERIM} interim answers"
    assert server.connections[0].sent < 8 * MIB


async def test_a_few_interim_answers_are_passed_over() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * MOST_INTERIM + OK
    async with attempting(keeping(raw)) as (transport, server):
        for _ in range(3):
            assert isinstance(await transport.send(envelope(server.url)), Accepted)
    assert [far.requests for far in server.connections] == [3]


async def test_switching_protocols_is_no_acceptance() -> None:
    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
        await far.pour(b"frames" * 1000)

    async with attempting(script) as (transport, server):
        assert reason_of(await transport.send(envelope(server.url))) == "101 Switching Protocols"
    assert server.connections[0].sent < 8 * MIB


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: b"HTTP/1.1 " + tail)))
def test_no_answer_whatever_raises(raw: bytes) -> None:
    async def attempt() -> Outcome:
        async with attempting(answering(raw)) as (transport, server):
            return await transport.send(envelope(server.url))

    outcome = asyncio.run(attempt())
    if isinstance(outcome, Failed):
        assert "fault of ours" not in reason_of(outcome)
    else:
        assert outcome.status is not None


# --- too much ---------------------------------------------------------------------------------------------------------


def endless(status: bytes) -> Script:
    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 1000000000000\r\n\r\n")
        await far.pour(b"z" * (1 << 16))

    return script


@pytest.mark.parametrize("status", [b"200 OK", b"500 Internal Server Error"])
async def test_a_body_without_end_is_read_so_far_and_no_further(status: bytes) -> None:
    async with attempting(endless(status)) as (transport, server):
        outcome = await transport.send(envelope(server.url))
        assert outcome.status == int(status[:3])
        assert isinstance(outcome, Accepted) or "500 Internal Server Error: zzz" in reason_of(outcome)
    assert server.connections[0].sent < 16 * MIB  # what the system's buffers take; not a terabyte


async def test_memory_stays_bounded_under_floods() -> None:
    async with attempting(endless(b"200 OK")) as (transport, server):
        await transport.send(envelope(server.url))
        tracemalloc.start()
        try:
            for _ in range(5):
                await asyncio.gather(*(transport.send(envelope(server.url)) for _ in range(10)))
            peak = tracemalloc.get_traced_memory()[1]
            await asyncio.gather(*server.tasks)
            server.connections.clear()
            server.tasks.clear()
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert peak < 16 * MIB, "ten at once, the far side's buffers included"
    assert held < 1 * MIB


async def test_an_answer_is_never_inflated() -> None:
    bomb = gzip.compress(b"\0" * (64 * MIB))
    for status in (b"200 OK", b"503 Busy"):
        head = b"HTTP/1.1 " + status + b"\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
        async with attempting(answering(head + bomb)) as (transport, server):
            tracemalloc.start()
            try:
                outcome = await transport.send(envelope(server.url))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert outcome.status == int(status[:3])
            assert isinstance(outcome, Accepted) or reason_of(outcome) == "503 Service Unavailable"
            assert peak < 4 * MIB


async def test_an_encoding_that_is_not_what_it_claims_does_not_matter() -> None:
    raw = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 8\r\n\r\nnot gzip"
    async with attempting(answering(raw)) as (transport, server):
        assert isinstance(await transport.send(envelope(server.url)), Accepted)


# --- answers that nobody asked for ------------------------------------------------------------------------------------


async def test_a_second_answer_is_never_taken_for_the_next_ones() -> None:
    """Two answers to one request: the connection must not be used again."""
    bad = b"HTTP/1.1 500 Stale\r\ncontent-length: 0\r\n\r\n"
    async with attempting(keeping(OK + bad)) as (transport, server):
        for _ in range(3):
            assert isinstance(await transport.send(envelope(server.url)), Accepted)
    assert [far.requests for far in server.connections] == [1, 1, 1]


async def test_nor_one_that_comes_while_the_connection_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "KEEP_ALIVE_SECONDS", 600.0)  # it is not for its age that the connection is dropped
    go = asyncio.Event()
    sent = asyncio.Event()

    async def script(far: Far) -> None:
        await far.request()
        far.writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        await go.wait()
        far.writer.write(OK)
        await far.writer.drain()
        sent.set()
        await far.gone()

    async with attempting(script) as (transport, server):
        assert isinstance(await transport.send(envelope(server.url)), Failed)
        go.set()
        await sent.wait()
        # The stale acceptance has been written; the near side drops the connection when it sees it.
        await asyncio.wait_for(asyncio.gather(*server.tasks), LONG)
        assert isinstance(await transport.send(envelope(server.url)), Failed)
    assert [far.requests for far in server.connections] == [1, 1]


async def test_more_body_than_was_announced_ends_the_connection() -> None:
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n"
    async with attempting(keeping(raw)) as (transport, server):
        first = await transport.send(envelope(server.url))
        second = await transport.send(envelope(server.url))
        assert isinstance(first, Accepted)
        # The rest of an answer may have been in flight: then the attempt fails. It is never accepted by a stale answer.
        assert second.status in (200, None)
    assert sum(far.requests for far in server.connections) == 2


async def test_an_answer_before_the_request_was_read() -> None:
    """What was not sent to its end leaves a connection that cannot be used again."""

    async def script(far: Far) -> None:
        await far.reader.readuntil(b"\r\n\r\n")
        far.writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await far.gone()

    async with attempting(script) as (transport, server):
        for _ in range(2):
            outcome = await transport.send(envelope(server.url, body=b"x" * (32 * MIB)))
            assert isinstance(outcome, Rejected)
            assert outcome.status == 413
    assert len(server.connections) == 2


# --- leading elsewhere ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_inward_is_refused_and_never_followed(status: int) -> None:
    async with serving(answering(OK)) as inner:
        raw = f"HTTP/1.1 {status} Moved\r\nlocation: {inner.url}?token=t\r\ncontent-length: 0\r\n\r\n".encode()
        async with attempting(answering(raw)) as (transport, server):
            reason = reason_of(await transport.send(envelope(server.url)))
        assert reason == f"{status}: redirect to http://{inner.host} refused, never followed"
        assert inner.connections == []


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("http://169.254.169.254/latest/meta-data", "http://169.254.169.254"),
        ("/other", "another path"),
        ("file:///etc/passwd", "another place"),
        ("//evil.example/x", "another place"),
        ("gopher://x:70/_\x01", "another place"),
    ],
)
async def test_what_a_redirect_says_is_shown_without_its_path(location: str, shown: str) -> None:
    raw = f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()
    async with attempting(answering(raw)) as (transport, server):
        reason = reason_of(await transport.send(envelope(server.url)))
    assert reason in (
        f"302: redirect to {shown} refused, never followed",
        f"the answer of {server.host} is not HTTP: invalid header value char",
    )


# --- what may be shown of an answer -----------------------------------------------------------------------------------


async def said(text: bytes, kind: bytes = b"text/plain") -> str:
    head = b"HTTP/1.1 500 Oops\r\ncontent-type: " + kind + b"\r\ncontent-length: %d\r\n\r\n" % len(text)
    async with attempting(answering(head + text)) as (transport, server):
        return reason_of(await transport.send(envelope(server.url)))


async def test_nothing_in_an_answer_moves_a_cursor() -> None:
    reason = await said("a\x1b[2J\x00b\u202ec\r\nd\u2028e\xff".encode())
    assert reason == "500 Internal Server Error: a\\u001b[2J\\u0000b\\u202ec d eÿ"
    assert await said(b"\xff\xfe") == "500 Internal Server Error: \ufffd\ufffd"


async def test_what_an_answer_repeats_of_the_request_is_not_shown() -> None:
    assert await said(b"bad: " + BODY) == "500 Internal Server Error: bad: ..."
    assert await said(b'{"got": "' + BODY.replace(b'"', b'\\"') + b'"}') == '500 Internal Server Error: {"got": "..."}'
    assert "a-secret" not in await said(b"unknown token a-secret-of-some-length, sorry")
    assert "c2lnbmF0" not in await said(b"wrong signature v1,c2lnbmF0dXJl given")


async def test_of_a_long_request_nothing_is_searched_and_so_nothing_shown() -> None:
    raw = b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops"
    async with attempting(answering(raw)) as (transport, server):
        outcome = await transport.send(envelope(server.url, body=b"x" * (MIB // 2)))
    assert reason_of(outcome) == "500 Internal Server Error"


async def test_pages_for_browsers_are_left_out() -> None:
    assert await said(b"<html><body>oh no</body></html>", b"text/html; charset=utf-8") == "500 Internal Server Error"
