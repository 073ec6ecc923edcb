"""Plain requests are answered without aiohttp, all others by it: what a client sees must be the same, byte for byte."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from universal_registry.api.fast import MOST_AHEAD, MOST_BODY, PlainConnection, PlainFront
from universal_registry.api.http import Response
from universal_registry.api.listening import ServerLimits
from universal_registry.api.sent_answers import MOST_ANSWERS, MOST_BYTES, SentAnswers
from universal_registry.api.server import ApiServer

BODY = b'{"spec":{"command":"x"}}'
PATH = b"/v1/default/aliases/a"
_CHANGING = re.compile(rb'Date: [^\r]*GMT|"(?:trace_id|at)":"[^"]*"|"milliseconds":[0-9.]+')
END = b"GET /the/end HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n"


class Wire:
    """A connection on which bytes go out as they are and answers are read one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes] | None:
        """Status, headers (names in lower case) and body of the next answer; None at the end."""
        async with asyncio.timeout(20):
            if self.reader.at_eof() or not (first := await self.reader.read(1)):
                return None
            head = first + await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            if headers.get("transfer-encoding") == "chunked":
                return int(status.split()[1]), headers, await self.reader.readuntil(b"0\r\n\r\n")
            length = int(headers.get("content-length", "0"))
            return int(status.split()[1]), headers, await self.reader.readexactly(length)

    async def all(self) -> bytes:
        """All that the server says until it closes, without what differs each time."""
        async with asyncio.timeout(20):
            return _CHANGING.sub(b"", await self.reader.read())


class Site:
    """One API behind two servers, one for each way."""

    def __init__(self, stack: Any, folder: Path, limits: ServerLimits) -> None:
        self.stack = stack
        self.wires: list[Wire] = []
        self.short, self.long = (
            ApiServer(
                stack.api,
                socket_path=folder / f"{name}.sock",
                listen="127.0.0.1:0",
                short_folder=folder,
                limits=limits,
                short_way=name == "short",
            )
            for name in ("short", "long")
        )
        self.hosts: dict[ApiServer, str] = {}

    async def start(self) -> Site:
        for server in (self.short, self.long):
            self.hosts[server] = (await server.start()).tcp or ""
        await self.stack.call("PUT", PATH.decode(), body=BODY, headers={"content-type": "application/json"})
        return self

    @property
    def front(self) -> PlainFront:
        """The connections by TCP that are on the short way."""
        return self.short._fronts[1]

    async def open(self, server: ApiServer | None = None) -> Wire:
        host, _, port = self.hosts[server or self.short].rpartition(":")
        self.wires.append(Wire(*await asyncio.open_connection(host, int(port))))
        return self.wires[-1]

    def other_end(self, name: Any) -> PlainConnection:
        """The connection of the client's socket of that name."""
        found = {each._transport.get_extra_info("peername"): each for each in self.front.connections}
        return found[name]

    def filled(self, data: bytes, server: ApiServer | None = None) -> bytes:
        host = self.hosts[server or self.short].encode()
        return data.replace(b"HOST", host).replace(b"TOKEN", self.stack.token.encode())

    def head(self, line: bytes, *more: bytes) -> bytes:
        """A request head for the short way's server."""
        return self.filled(b"\r\n".join((line + b" HTTP/1.1", b"Host: HOST", b"Authorization: Bearer TOKEN", *more)))

    def request(self, method: bytes = b"GET", path: bytes = PATH, body: bytes = b"") -> bytes:
        more = (b"Content-Length: %d" % len(body),) if body else ()
        return self.head(method + b" " + path, *more) + b"\r\n\r\n" + body


@pytest.fixture
async def limits() -> ServerLimits:
    return ServerLimits()


@pytest.fixture
async def site(stack: Any, tmp_path: Path, limits: ServerLimits) -> AsyncIterator[Site]:
    made = await Site(stack, tmp_path, limits).start()
    yield made
    for wire in made.wires:
        wire.writer.close()
    for server in (made.short, made.long):
        await server.stop(1)


def lines(*given: bytes, body: bytes = b"") -> bytes:
    """A request of these lines, with the right Host and token."""
    first, *more = given
    return b"\r\n".join((first, b"host: HOST", b"authorization: Bearer TOKEN", *more, b"", body))


LENGTH = b"content-length: %d" % len(BODY)
GET = b"GET " + PATH + b" HTTP/1.1"
PUT = b"PUT " + PATH + b" HTTP/1.1"
BARE = {
    "plain": lines(GET),
    "put": lines(PUT, LENGTH, body=BODY),
    "put and type": lines(PUT, b"content-type: application/json", LENGTH, body=BODY),
    "wrong type": lines(PUT, b"content-type: text/plain", LENGTH, body=BODY),
    "no json": lines(PUT, b"content-length: 3", body=b"{a}"),
    "empty body": lines(PUT, b"content-length: 0"),
    "no length": lines(PUT),
    "get with body": lines(GET, LENGTH, body=BODY),
    "delete of nothing": lines(b"DELETE /v1/default/aliases/none HTTP/1.1"),
    "batch of nothing": lines(b"POST /v1/batch HTTP/1.1", b"content-length: 17", body=b'{"operations":[]}'),
    "three": lines(GET) + lines(PUT, LENGTH, body=BODY) + lines(GET),
    "not modified": lines(GET, b'if-none-match: "1"'),
    "as table": lines(GET, b"accept: text/tab-separated-values"),
    "query": lines(b"GET /v1/default/aliases?limit=1&name=a* HTTP/1.1"),
    "unknown query": lines(b"GET /v1/default/aliases?nmae=a HTTP/1.1"),
    "query not utf-8": lines(b"GET /v1/default/aliases?name=%ff HTTP/1.1"),
    "query nul": lines(b"GET /v1/default/aliases?name=%00 HTTP/1.1"),
    "query long": lines(b"GET /v1/default/aliases?" + b"a=b&" * 300 + b" HTTP/1.1"),
    "escape": lines(b"GET /v1/default/aliases/%61 HTTP/1.1"),
    "bad escape": lines(b"GET /v1/default/aliases/%6 HTTP/1.1"),
    "escaped nul": lines(b"GET /v1/default/aliases/%00 HTTP/1.1"),
    "dot segments": lines(b"GET /v1/default/../aliases/a HTTP/1.1"),
    "two slashes": lines(b"GET //v1/default/aliases/a HTTP/1.1"),
    "slash at the end": lines(b"GET /v1/default/aliases/ HTTP/1.1"),
    "root": lines(b"GET / HTTP/1.1"),
    "no route": lines(b"GET /v1/no/where/at/all HTTP/1.1"),
    "no route for a body": lines(b"PUT /v1/no/where/at/all HTTP/1.1", LENGTH, body=BODY),
    "no method": lines(b"POST " + PATH + b" HTTP/1.1", LENGTH, body=BODY),
    "fragment": lines(b"GET " + PATH + b"#x HTTP/1.1"),
    "no path": lines(b"GET v1 HTTP/1.1"),
    "star": lines(b"OPTIONS * HTTP/1.1"),
    "absolute": lines(b"GET http://HOST" + PATH + b" HTTP/1.1"),
    "space in path": lines(b"GET /v1/default/aliases/a b HTTP/1.1"),
    "two spaces": lines(b"GET  " + PATH + b" HTTP/1.1"),
    "path not ascii": lines("GET /v1/default/aliases/ä HTTP/1.1".encode()),
    "nul in path": lines(b"GET /v1/default/aliases/a\0 HTTP/1.1"),
    "head": lines(b"HEAD " + PATH + b" HTTP/1.1"),
    "options": lines(b"OPTIONS " + PATH + b" HTTP/1.1"),
    "trace": lines(b"TRACE " + PATH + b" HTTP/1.1"),
    "lower-case method": lines(b"get " + PATH + b" HTTP/1.1"),
    "unknown method": lines(b"FROB " + PATH + b" HTTP/1.1"),
    "http/1.0": lines(b"GET " + PATH + b" HTTP/1.0"),
    "http/1.0 that stays": lines(b"GET " + PATH + b" HTTP/1.0", b"connection: keep-alive"),
    "http/2.0": lines(b"GET " + PATH + b" HTTP/2.0"),
    "http/0.9": b"GET " + PATH + b"\r\n\r\n",
    "no host": b"GET " + PATH + b" HTTP/1.1\r\nauthorization: Bearer TOKEN\r\n\r\n",
    "wrong host": b"GET " + PATH + b" HTTP/1.1\r\nhost: evil.example\r\nauthorization: Bearer TOKEN\r\n\r\n",
    "right host, then wrong": lines(GET) + lines(GET).replace(b"host: HOST", b"host: evil.example"),
    "two hosts": lines(GET, b"Host: HOST"),
    "no token": b"GET " + PATH + b" HTTP/1.1\r\nhost: HOST\r\n\r\n",
    "wrong token": b"GET " + PATH + b" HTTP/1.1\r\nhost: HOST\r\nauthorization: Bearer ur_" + b"A" * 43 + b"\r\n\r\n",
    "right token, then wrong": lines(GET) + lines(GET).replace(b"TOKEN", b"ur_" + b"A" * 43),
    "two tokens": lines(GET, b"authorization: Bearer TOKEN"),
    "length twice": lines(PUT, LENGTH, LENGTH, body=BODY),
    "two lengths": lines(PUT, LENGTH, b"content-length: 3", body=BODY),
    "length in a list": lines(PUT, LENGTH + b", " + LENGTH[16:], body=BODY),
    "length with plus": lines(PUT, b"content-length: +24", body=BODY),
    "length in hex": lines(PUT, b"content-length: 0x18", body=BODY),
    "length with zeros": lines(PUT, b"content-length: 0024", body=BODY),
    "length with spaces": lines(PUT, b"content-length:   24  ", body=BODY),
    "negative length": lines(PUT, b"content-length: -1", body=BODY),
    "length and chunks": lines(PUT, LENGTH, b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "chunks": lines(PUT, b"transfer-encoding: chunked", body=b"18\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "bad chunks": lines(PUT, b"transfer-encoding: chunked", body=b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "odd coding": lines(PUT, b"transfer-encoding: xchunked", body=BODY),
    "coding hidden by a space": lines(PUT, LENGTH, b"transfer-encoding : chunked", body=BODY),
    "coding hidden by a tab": lines(PUT, LENGTH, b"transfer-encoding:\tchunked", body=BODY),
    "compressed": lines(PUT, LENGTH, b"content-encoding: gzip", body=BODY),
    "expect": lines(PUT, LENGTH, b"expect: 100-continue", body=BODY),
    "expect something": lines(PUT, LENGTH, b"expect: a miracle", body=BODY),
    "upgrade": lines(GET, b"connection: upgrade", b"upgrade: websocket"),
    "stays": lines(GET, b"connection: keep-alive"),
    "stays, in capitals": lines(GET, b"Connection: Keep-Alive"),
    "close": lines(GET, b"connection: close"),
    "close among others": lines(GET, b"connection: keep-alive, close"),
    "folded": lines(GET, b"x: a\r\n b"),
    "folded length": lines(PUT, b"content-length:\r\n 24", body=BODY),
    "header twice": lines(GET, b'if-none-match: "7"', b'if-none-match: "1"'),
    "nul in a header": lines(GET, b"x: a\0b"),
    "tab in a header": lines(GET, b"x: a\tb"),
    "utf-8 in a header": lines(GET, "x: ä".encode()),
    "latin-1 in a header": lines(GET, b"x: \xe4"),
    "no colon": lines(GET, b"nonsense"),
    "no name": lines(GET, b": x"),
    "no value": lines(GET, b"x:"),
    "space before the colon": lines(GET, b"x : y"),
    "odd name": lines(GET, b"x_y~z!: 1"),
    "bad name": lines(GET, b"x(y): 1"),
    "spaces around": lines(GET, b'if-none-match:    "1"   '),
    "lines end in lf": lines(GET).replace(b"\r\n", b"\n"),
    "one line ends in lf": lines(GET, b"x: y").replace(b"\r\nx", b"\nx"),
    "one line ends in cr": lines(GET, b"x: y").replace(b"\r\nx", b"\rx"),
    "empty line first": b"\r\n" + lines(GET),
    "empty line between": lines(GET) + b"\r\n" + lines(GET),
    "long line": lines(b"GET /" + b"a" * 20_000 + b" HTTP/1.1"),
    "long header": lines(GET, b"x: " + b"a" * 20_000),
    "long head": lines(GET, *(b"x%d: " % at + b"a" * 2000 for at in range(20))),
    "many headers": lines(GET, *(b"x%d: y" % at for at in range(200))),
    "nearly too many headers": lines(GET, *(b"x%d: y" % at for at in range(97))),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
    "bad key": lines(PUT, LENGTH, b"idempotency-key:", body=BODY),
    "guard": lines(PUT, LENGTH, b'if-match: "99"', body=BODY),
    "export": lines(b"GET /v1/-/export?kind=alias HTTP/1.1"),
    "changes": lines(b"GET /v1/changes HTTP/1.1"),
    "huge length": lines(PUT, b"content-length: 99999999999999999999"),
    "body too large": lines(PUT, b"content-length: 999999999"),
}


@pytest.mark.parametrize("name", BARE)
async def test_both_ways_answer_alike(site, name):
    """Each request, then one that ends the connection, on both ways: the same answers, and nothing more."""
    answers = []
    for server in (site.short, site.long):
        wire = await site.open(server)
        wire.send(site.filled(BARE[name] + END, server))
        port = site.hosts[server].rpartition(":")[2]
        answers.append((await wire.all()).replace(port.encode(), b"PORT"))
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.")


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        *((each, True) for each in ("plain", "put", "put and type", "no json", "three", "not modified", "as table")),
        *((each, True) for each in ("query", "unknown query", "escape", "stays", "get with body", "no length")),
        *((each, False) for each in ("chunks", "expect", "two hosts", "http/1.0 that stays", "odd name")),
        *((each, False) for each in ("no route", "export", "changes", "absolute", "options", "header twice")),
        *((each, False) for each in ("tab in a header", "utf-8 in a header", "length with zeros", "upgrade")),
        ("no token", False),
    ],
)
async def test_only_plain_requests_go_the_short_way(site, name, stays):
    """So that the comparison above compares two ways."""
    wire = await site.open()
    wire.send(site.filled(BARE[name]))
    for _ in range(3 if name == "three" else 1):
        assert await wire.answer() is not None
    assert len(site.front.connections) == stays


async def on_the_server(site: Site, wire: Wire) -> PlainConnection:
    """The other end, once it has answered a request."""
    wire.send(site.request())
    assert await wire.answer() is not None
    return site.other_end(wire.writer.get_extra_info("sockname"))


async def test_health_needs_no_token_on_the_short_way(site):
    wire = await site.open()
    wire.send(site.filled(b"GET /health/ready HTTP/1.1\r\nHost: HOST\r\n\r\n"))
    assert (await wire.answer())[0] == 200
    assert len(site.front.connections) == 1


def arrives(connection: PlainConnection, *pieces: bytes) -> None:
    """The server reads these pieces, one after the other."""
    transport = connection._transport
    for piece in pieces:
        transport.get_protocol().data_received(piece)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_may_come_in_any_two_pieces(site, chunked):
    if chunked:
        more = b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY[:5] + b"\r\n13\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"
        data = site.head(b"PUT " + PATH) + b"\r\n" + more
    else:
        data = site.request(b"PUT", body=BODY)
    data += site.request()
    for cut in range(1, len(data)):
        wire = await site.open()
        arrives(await on_the_server(site, wire), data[:cut], data[cut:])
        for _ in range(2):
            status, _, body = await wire.answer()
            assert (cut, status) == (cut, 200)
            assert b'"command":"x"' in body
        wire.writer.close()


async def test_answers_come_in_the_order_of_the_requests(site):
    wire = await site.open()
    names = [b"n%d" % at for at in range(20)]
    odd = site.head(b"GET /v1/default/aliases/n7", b"x_odd: 1") + b"\r\n\r\n"
    puts = b"".join(site.request(b"PUT", b"/v1/default/aliases/" + name, BODY) for name in names)
    gets = [site.request(path=b"/v1/default/aliases/" + name) for name in names]
    wire.send(puts + b"".join(gets) + odd + gets[3])
    effects = [(await wire.answer())[0] for _ in names]
    assert effects == [201] * len(names)
    found = [orjson.loads((await wire.answer())[2])["name"].encode() for _ in range(len(names) + 2)]
    assert found == [*names, b"n7", b"n3"]
    assert not site.front.connections, "the odd one and those behind it were handed over"


@pytest.mark.parametrize("cut", [10, -5], ids=["in the head", "in the body"])
@pytest.mark.parametrize("way", ["short", "long"])
async def test_half_a_request_then_the_end(site, cut, way):
    before = await site.stack.store.head()
    server = getattr(site, way)
    wire = await site.open(server)
    wire.send(site.filled(lines(PUT, LENGTH, body=BODY), server)[:cut])
    wire.writer.write_eof()
    assert b"HTTP/1.1 2" not in await wire.all()
    assert (await site.stack.store.head()).revision == before.revision
    assert not site.front.connections


async def test_a_body_that_comes_slowly_in_many_pieces(site):
    """It is put together once, and what follows it is the next request."""
    body = orjson.dumps({"spec": {"command": "y" * 5000}})
    data = site.request(b"PUT", body=body)
    wire = await site.open()
    connection = await on_the_server(site, wire)
    arrives(connection, data[: -len(body)])
    arrives(connection, *(body[at : at + 1] for at in range(len(body) - 1)), body[-1:] + site.request())
    assert (await wire.answer())[0] == 200
    assert orjson.loads((await wire.answer())[2])["spec"]["command"] == "y" * 5000
    assert site.front.connections


async def test_a_long_body_is_handed_over(site):
    body = orjson.dumps({"operations": [], "message": "m" * (MOST_BODY + 1)})
    wire = await site.open()
    wire.send(site.request(b"POST", b"/v1/batch", body))
    assert (await wire.answer())[0] == 413
    assert not site.front.connections


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [ServerLimits(idle=0.2)])
async def test_an_idle_connection_is_closed(site, limits):
    silent, served = await site.open(), await site.open()
    served.send(site.request())
    assert (await served.answer())[0] == 200
    assert await silent.answer() is None
    assert await served.answer() is None
    assert not site.front.connections


@pytest.mark.parametrize("limits", [ServerLimits(body=0.2)])
async def test_a_body_has_its_time(site, limits):
    wire = await site.open()
    wire.send(site.request(b"PUT", body=BODY)[:-1])
    status, headers, body = await wire.answer()
    assert (status, headers["connection"], orjson.loads(body)["code"]) == (504, "close", "timed-out")
    assert await wire.answer() is None


# --- a client that does not read ------------------------------------------------------------------------------------


class Told:
    """A transport that tells when it is not read any more."""

    def __init__(self, transport: Any, told: asyncio.Event) -> None:
        self._transport, self._told = transport, told

    def pause_reading(self) -> None:
        self._transport.pause_reading()
        self._told.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_who_does_not_read_is_not_answered_any_more(site):
    """Nor read: what waits for such a client is bounded, and it gets all of it once it reads."""
    host, _, port = site.hosts[site.short].rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    request, asked = site.head(b"GET /openapi.json", b"x: " + b"y" * 2000) + b"\r\n\r\n", 600
    await loop.sock_sendall(sock, request)
    seen, count = b"", 0
    while not seen.endswith(b"HTTP/1.1 200 OK"):
        seen += await loop.sock_recv(sock, 1)
    connection = site.other_end(sock.getsockname())
    full, pause_writing = asyncio.Event(), connection.pause_writing

    def paused() -> None:
        pause_writing()
        full.set()

    connection.pause_writing = paused
    connection._transport = Told(connection._transport, full)
    sender = asyncio.gather(loop.sock_sendall(sock, request * (asked - 1)))
    async with asyncio.timeout(20):
        while not (connection._writing_paused and connection._reading_paused):
            full.clear()
            await full.wait()
    assert connection._size <= MOST_AHEAD + (256 << 10)
    assert connection._transport.get_write_buffer_size() < 1 << 20
    async with asyncio.timeout(60):
        while count < asked:
            data = seen + await loop.sock_recv(sock, 1 << 20)
            count += data.count(b"HTTP/1.1 200 OK")
            seen = data[-14:] if not data.endswith(b"HTTP/1.1 200 OK") else b""
        await sender
    sock.close()


# --- who calls ------------------------------------------------------------------------------------------------------


async def test_a_token_that_opens_nothing_any_more_opens_nothing_on_an_open_connection(site, monkeypatch):
    wire = await site.open()
    wire.send(site.request() * 2)
    assert [(await wire.answer())[0] for _ in range(2)] == [200, 200]
    auth = site.stack.api._auth
    monkeypatch.setattr(auth, "_admin_token_hash", "0" * 64)
    monkeypatch.setattr(type(auth), "version", 1)
    wire.send(site.request())
    assert (await wire.answer())[0] == 401


async def test_the_caller_is_that_of_each_request(site):
    """What is remembered of the headers of one request counts for the same bytes only."""
    wire = await site.open()
    refused = site.request().replace(site.stack.token.encode(), b"ur_" + b"A" * 43)
    wire.send(site.request() + refused + site.request())
    assert [(await wire.answer())[0] for _ in range(3)] == [200, 401, 200]


# --- answers that are sent again ------------------------------------------------------------------------------------


class Dispatched:
    """Counts the requests that were answered anew."""

    def __init__(self, site: Site) -> None:
        self.count = 0
        self._dispatch = site.stack.api.dispatch
        site.stack.api.dispatch = self.dispatch
        site.front.date = lambda _: "Thu, 01 Jan 2026 00:00:00 GMT"

    async def dispatch(self, *given: Any) -> Response:
        self.count += 1
        return await self._dispatch(*given)


async def got(wire: Wire, request: bytes) -> tuple[int, dict[str, str], bytes]:
    wire.send(request)
    found = await wire.answer()
    assert found is not None
    return found


async def test_a_record_is_answered_again_until_something_is_written(site):
    wire, dispatched = await site.open(), Dispatched(site)
    answers = [await got(wire, site.request()) for _ in range(3)]
    assert dispatched.count == 1
    assert answers[0] == answers[1] == answers[2]
    await site.stack.call("PUT", "/v1/default/aliases/other", body=BODY, headers={"content-type": "application/json"})
    anew = await got(wire, site.request())
    assert anew[1]["registry-revision"] == "2"
    assert anew[2] == answers[0][2]
    await site.stack.call("DELETE", PATH.decode())
    assert (await got(wire, site.request()))[0] == 404
    assert (await got(wire, site.request()))[0] == 404


async def test_it_is_answered_anew_each_second(site):
    """What somebody else did to the file shows."""
    wire, dispatched = await site.open(), Dispatched(site)
    for count in (1, 2, 3):
        site.front.date = lambda _, second=count: f"Thu, 01 Jan 2026 00:00:0{second} GMT"
        for _ in range(2):
            _, headers, _ = await got(wire, site.request())
            assert headers["date"] == f"Thu, 01 Jan 2026 00:00:0{count} GMT"
        assert dispatched.count == count


async def test_nothing_is_answered_again_while_a_transaction_is_open(site):
    """Its COMMIT may show to one reader already, who must not be told what was before by the next answer."""
    wire, dispatched = await site.open(), Dispatched(site)
    assert (await got(wire, site.request()))[0] == 200
    async with site.stack.store.batch():
        for _ in range(2):
            assert (await got(wire, site.request()))[0] == 200
    assert dispatched.count == 3
    assert (await got(wire, site.request()))[0] == 200
    assert dispatched.count == 4, "what was read meanwhile is not kept"


class LateExecutor(ThreadPoolExecutor):
    """What it does is `done` before anybody who waits for it is told, when `tell` is set."""

    def __init__(self) -> None:
        super().__init__(1)
        self.done, self.tell = threading.Event(), threading.Event()

    def submit(self, work, /, *args, **named):
        def late() -> Any:
            result = work(*args, **named)
            self.done.set()
            self.tell.wait(20)
            return result

        return super().submit(late)


async def test_a_commit_that_is_not_told_yet_is_seen_by_all_or_by_none(site):
    wire, _ = await site.open(), Dispatched(site)
    assert b'"command":"x"' in (await got(wire, site.request()))[2]
    late = LateExecutor()
    site.stack.store.database.run_in(late)
    body = b'{"spec":{"command":"y"}}'
    writer = await site.open()
    writer.send(site.request(b"PUT", body=body))
    await asyncio.to_thread(late.done.wait, 20)
    for _ in range(2):
        _, headers, answer = await got(wire, site.request())
        assert b'"command":"y"' in answer
        assert headers["registry-revision"] == "2"
    assert [line.revision for line in await site.stack.store.changes(0, 10)] == [1, 2]
    late.tell.set()
    assert (await writer.answer())[0] == 200
    assert b'"command":"y"' in (await got(wire, site.request()))[2]


@pytest.mark.parametrize(
    ("line", "status"),
    [(b'if-none-match: "1"', 304), (b"accept: text/tab-separated-values", 200), (b"content-encoding: gzip", 400)],
)
async def test_who_asks_for_it_otherwise_gets_another_answer(site, line, status):
    wire, dispatched = await site.open(), Dispatched(site)
    plain = await got(wire, site.request())
    found = await got(wire, site.head(b"GET " + PATH, line) + b"\r\n\r\n")
    assert found[0] == status
    assert found[2] != plain[2]
    assert await got(await site.open(), site.request()) == plain
    assert dispatched.count == 2


async def test_who_may_not_read_is_told_nothing_that_is_kept(site):
    wire = await site.open()
    Dispatched(site)
    assert (await got(wire, site.request()))[0] == 200
    refused = site.request().replace(site.stack.token.encode(), b"ur_" + b"A" * 43)
    assert (await got(await site.open(), refused))[0] == 401


def test_few_answers_are_kept_and_no_large_one():
    sent = SentAnswers()
    for number in range(MOST_ANSWERS + 5):
        sent.keep(f"/{number}", b"x", 2, "now")
    sent.keep("/0", b"y" * (MOST_BYTES + 1), 2, "now")
    assert sum(sent.get(f"/{number}", 2, "now") is not None for number in range(MOST_ANSWERS + 5)) == MOST_ANSWERS
    assert (sent.get("/0", 2, "now"), sent.get("/0", 2, "then"), sent.get("/0", 4, "now")) == (b"x", None, None)
    assert sent.get("/0", None, "now") is None
    sent.keep("/1", b"z", 4, "now")
    assert (sent.get("/1", 4, "now"), sent.get("/0", 4, "now")) == (b"z", None)


# --- bugs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["a\r\nb: c", "a\nb"])
async def test_no_answer_can_be_split_by_its_headers(site, monkeypatch, header):
    async def broken(*_: Any) -> Response:
        return Response(headers=(("x", header),), body=b"")

    monkeypatch.setattr(site.stack.api, "dispatch", broken)
    wire = await site.open()
    wire.send(site.request())
    status, headers, _ = await wire.answer()
    assert (status, "x" in headers, "b" in headers) == (500, False, False)
    assert len(site.stack.bugs) == 1
    site.stack.bugs.clear()


# --- stopping -------------------------------------------------------------------------------------------------------


class Gate:
    """Holds writes back: `reached` once one is there."""

    def __init__(self, stack: Any) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self._submit = stack.writer.submit
        stack.writer.submit = self.submit

    async def submit(self, request: Any) -> Any:
        self.reached.set()
        await self.open.wait()
        return await self._submit(request)


async def test_stop_waits_for_a_request_and_closes_idle_connections(site):
    gate = Gate(site.stack)
    idle, busy = await site.open(), await site.open()
    idle.send(site.request())
    assert (await idle.answer())[0] == 200
    busy.send(site.request(b"PUT", b"/v1/default/aliases/late", BODY) + site.request())
    await gate.reached.wait()
    stopping = asyncio.gather(site.short.stop(20))
    assert await idle.answer() is None
    gate.open.set()
    assert (await busy.answer())[0] == 201
    assert await busy.answer() is None, "what was asked behind it is not begun"
    await stopping


async def test_stop_cuts_off_what_does_not_end(site):
    gate = Gate(site.stack)
    wire = await site.open()
    wire.send(site.request(b"PUT", body=BODY))
    await gate.reached.wait()
    async with asyncio.timeout(10):
        await site.short.stop(0.1)
    with suppress(ConnectionResetError):  # or a plain end
        assert await wire.answer() is None
    gate.open.set()


async def test_a_write_whose_client_left_is_done(site):
    gate = Gate(site.stack)
    wire = await site.open()
    wire.send(site.request(b"PUT", b"/v1/default/aliases/left", BODY))
    await gate.reached.wait()
    connection = site.other_end(wire.writer.get_extra_info("sockname"))
    task = connection._task
    wire.writer.transport.abort()
    gate.open.set()
    async with asyncio.timeout(10):
        await asyncio.wait([task])
    answer = await site.stack.call("GET", "/v1/default/aliases/left")
    assert answer.status == 200
    assert connection not in site.front.connections
