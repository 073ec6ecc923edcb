"""The API on real sockets: addresses, callers, hosts, garbage, limits, stopping."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest

from universal_registry.api.http import Peer, PeerKind
from universal_registry.api.listening import ServerLimits, allowed_hosts, peer_uid, short_path
from universal_registry.client.http import Client, find_daemon, record_path
from universal_registry.kernel.errors import (
    Conflict,
    MisdirectedRequest,
    NotFound,
    PreconditionFailed,
    TooLarge,
    Unauthenticated,
    Unreachable,
    UsageError,
)
from universal_registry.kernel.settings import Places


async def raw(address: str, data: bytes) -> bytes:
    """What a server says to these bytes until it closes the connection."""
    if address.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def problem_in(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), orjson.loads(body)


def in_thread(work: Any) -> Any:
    return asyncio.to_thread(work)


# --- callers --------------------------------------------------------------------------------------------------------


async def test_the_local_user_needs_no_token_on_the_socket(stack, serve):
    _, addresses = await serve()
    assert stat.S_IMODE(os.stat(addresses.socket).st_mode) == 0o660
    assert stat.S_IMODE(os.stat(Path(addresses.socket).parent).st_mode) & 0o700 == 0o700

    def work() -> None:
        with Client(addresses.socket) as client:
            path = record_path("default", "aliases", "@a/b")
            made = client.request("PUT", path, json={"spec": {"command": "x"}})
            assert made.status == 201
            assert made.json()["record"]["meta"]["created_by"] == f"uid:{os.getuid()}"
            assert client.request("GET", path).json()["name"] == "@a/b"
            with pytest.raises(NotFound, match="no alias 'c'"):
                client.request("GET", record_path("default", "aliases", "c"))
            with pytest.raises(PreconditionFailed) as caught:
                client.request("PUT", path, json={"spec": {"command": "y"}}, headers={"If-Match": '"9"'})
            assert caught.value.data["revision"] == 1

    await in_thread(work)


async def test_tcp_needs_the_token(stack, serve):
    _, addresses = await serve()

    def work() -> None:
        for token in (None, "ur_" + "A" * 43, "nonsense"):
            with Client(addresses.tcp, token) as client, pytest.raises(Unauthenticated):
                client.request("GET", "/v1/-/kinds")
        with Client(addresses.tcp) as client:
            assert client.request("GET", "/health/db").json()["status"] == "ok"
        with Client(addresses.tcp, stack.token) as client:
            assert len(client.request("GET", "/v1/-/kinds").json()["items"]) == 42

    await in_thread(work)


async def test_no_answer_shows_the_token(stack, serve):
    _, addresses = await serve()
    wrong = "ur_" + "Z" * 42 + "A"
    head = ("GET /v1/-/kinds HTTP/1.1", f"host: {addresses.tcp}", f"authorization: Bearer {wrong}", "connection: close")
    answer = await raw(addresses.tcp, "\r\n".join((*head, "", "")).encode())
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"WWW-Authenticate" in answer or b"www-authenticate" in answer
    assert b"ZZZ" not in answer


@pytest.mark.parametrize(
    ("peer", "token", "status"),
    [
        (Peer(kind=PeerKind.UNIX, uid=os.getuid()), False, 200),
        (Peer(kind=PeerKind.UNIX, uid=0), False, 200),
        (Peer(kind=PeerKind.UNIX, uid=54321), False, 401),
        (Peer(kind=PeerKind.UNIX, uid=54321), True, 200),
        (Peer(kind=PeerKind.UNIX, uid=None), False, 401),
        (Peer(kind=PeerKind.TCP, hosts=frozenset({"h:1"})), False, 401),
        (Peer(kind=PeerKind.TCP, hosts=frozenset({"h:1"})), True, 200),
        (Peer(kind=PeerKind.INPROC), False, 200),
    ],
)
async def test_who_may_come_in(stack, peer, token, status):
    headers = {"host": "h:1", **({"authorization": f"Bearer {stack.token}"} if token else {})}
    assert (await stack.call("GET", "/v1/-/kinds", headers=headers, peer=peer)).status == status


async def test_the_kernel_names_the_other_end(stack):
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert peer_uid(left) == os.getuid()


# --- hosts ----------------------------------------------------------------------------------------------------------


async def test_a_foreign_host_header_is_refused_even_for_health(stack, serve):
    _, addresses = await serve()
    port = addresses.tcp.rpartition(":")[2]
    for host, status in [
        (f"127.0.0.1:{port}", 200),
        (f"LocalHost:{port}", 200),
        (f"[::1]:{port}", 200),
        ("localhost", 421),
        (f"evil.example:{port}", 421),
        (f"127.0.0.1.evil.example:{port}", 421),
        (f"localhost:{int(port) - 1}", 421),
        ("", 421),
    ]:
        answer = await raw(
            addresses.tcp, f"GET /health/live HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
        )
        assert (host, int(answer.split()[1])) == (host, status)
    answer = await raw(addresses.tcp, b"GET /health/live HTTP/1.0\r\n\r\n")
    assert answer.split()[1] == b"421"
    twice = f"GET /health/live HTTP/1.1\r\nhost: evil\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n"
    assert (await raw(addresses.tcp, twice.encode())).split()[1] == b"400"


def test_what_a_host_may_be():
    assert allowed_hosts("0.0.0.0", 80) >= {"localhost", "localhost:80"}
    assert "0.0.0.0:80" not in allowed_hosts("0.0.0.0", 80)
    assert "reg.example:8080" in allowed_hosts("Reg.Example", 8080)
    assert "[fd00::1]:8080" in allowed_hosts("fd00::1", 8080)


async def test_misdirected_is_an_error_of_ours(stack):
    with pytest.raises(MisdirectedRequest):
        stack.api.admit(_tcp_request())


def _tcp_request() -> Any:
    from universal_registry.api.http import request_from

    return request_from("GET", "/health/live", [], b"", Peer(kind=PeerKind.TCP, hosts=frozenset({"a:1"})))


# --- garbage and limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
)
async def test_garbage_is_a_400_and_the_connection_ends(stack, serve, data):
    _, addresses = await serve(listen="")
    status, problem = problem_in(await raw(addresses.socket, data))
    assert (status, problem["code"]) == (400, "malformed")
    assert "Traceback" not in problem["detail"]
    assert not problem["detail"].endswith(":")
    assert "b'" not in problem["detail"], "nothing is quoted that was cut"


@pytest.mark.parametrize("size", [20_000, 60_000])
async def test_a_line_that_is_too_long_is_named(stack, serve, size):
    _, addresses = await serve(listen="")
    _, problem = problem_in(await raw(addresses.socket, b"GET /" + b"a" * size + b" HTTP/1.1\r\n\r\n"))
    assert (problem["detail"], problem["hint"]) == ("the request line is too long", "at most 16384 bytes")
    data = b"GET /health/live HTTP/1.1\r\nx: " + b"a" * size + b"\r\n\r\n"
    assert problem_in(await raw(addresses.socket, data))[1]["detail"] == "a header is too long"


@pytest.mark.parametrize("data", [b"garbage\r\n\r\n", b"GET /health/live HTTP/1.1\r\nconnection: close\r\n\r\n"])
async def test_no_answer_tells_versions(stack, serve, data):
    _, addresses = await serve(listen="")
    head = (await raw(addresses.socket, data)).partition(b"\r\n\r\n")[0].lower()
    assert b"server: universal-registry" in head
    assert b"aiohttp" not in head
    assert b"python" not in head


async def test_paths_stay_raw_on_the_wire(stack, serve):
    _, addresses = await serve(listen="")
    for segment, name in [("..", ".."), ("%2e%2e", ".."), ("a%2Fb", "a/b"), ("%40s%2Fp", "@s/p"), ("a//b", None)]:
        body = b'{"spec":{"command":"x"}}'
        head = f"PUT /v1/default/aliases/{segment} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        answer = await raw(addresses.socket, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if name is None:
            assert answer.split()[1] == b"404"
        else:
            assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["record"]["name"] == name


async def test_a_slow_head_is_cut_off(stack, serve):
    _, addresses = await serve(listen="", limits=ServerLimits(idle=0.2))
    assert await raw(addresses.socket, b"GET /health/live HTTP/1.1\r\nhost:") == b""


async def test_a_slow_body_is_cut_off(stack, serve):
    _, addresses = await serve(listen="", limits=ServerLimits(body=0.2))
    answer = await raw(addresses.socket, b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    assert problem_in(answer)[1]["code"] == "timed-out"


async def test_a_body_too_large_is_refused_before_it_is_read(stack, serve):
    _, addresses = await serve(listen="")
    head = b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"
    assert problem_in(await raw(addresses.socket, head))[0] == 413
    chunked = b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await raw(
        addresses.socket, chunked + b"80000\r\n" + b"x" * 0x80000 + b"\r\n" + b"80001\r\n" + b"x" * 0x80001
    )
    assert problem_in(answer)[0] == 413

    def work() -> None:
        with Client(addresses.socket) as client:
            with pytest.raises(TooLarge):
                client.request("PUT", "/v1/default/aliases/a", body=b"x" * (8 << 20))
            assert client.request("GET", "/health/live").status == 200

    await in_thread(work)


async def test_a_body_is_asked_for_only_when_it_is_welcome(stack, serve):
    _, addresses = await serve(listen="")
    body = b'{"spec":{"command":"x"}}'

    def head(path: str) -> bytes:
        lines = (f"PUT {path} HTTP/1.1", "host: x", "connection: close", "expect: 100-continue")
        return "\r\n".join((*lines, f"content-length: {len(body)}", "", "")).encode()

    reader, writer = await asyncio.open_unix_connection(addresses.socket)
    writer.write(head("/v1/default/aliases/a"))
    async with asyncio.timeout(10):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 201")
    writer.close()
    assert problem_in(await raw(addresses.socket, head("/v1/nowhere")))[0] == 404


async def test_an_answer_that_fails_half_way_is_cut_off_and_reported(stack, serve):
    _, addresses = await serve(listen="")
    documents = [{"kind": "alias", "name": f"n{number:04}", "spec": {"command": "x"}} for number in range(1001)]
    await stack.call("POST", "/v1/-/apply", json=documents)
    pages = stack.store.pages

    async def one_page(*given: Any, **named: Any) -> Any:
        async with aclosing(pages(*given, **named)) as found:
            yield await anext(found)
        raise RuntimeError("the second page")

    stack.store.pages = one_page

    def work() -> None:
        with Client(addresses.socket) as client, pytest.raises(Unreachable):
            client.request("GET", "/v1/-/export")

    await in_thread(work)
    ((error, _),) = stack.bugs
    assert str(error) == "the second page"
    stack.bugs.clear()


async def test_a_stranger_uploads_nothing(stack, serve):
    _, addresses = await serve()
    head = f"POST /v1/-/apply HTTP/1.1\r\nhost: {addresses.tcp}\r\ncontent-length: 1000000\r\n\r\n"
    assert problem_in(await raw(addresses.tcp, head.encode()))[0] == 401


async def test_a_compressed_body_is_not_unpacked(stack, serve):
    _, addresses = await serve(listen="")
    head = b"PUT /v1/default/aliases/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-encoding: gzip\r\n"
    assert problem_in(await raw(addresses.socket, head + b"content-length: 2\r\n\r\n{}"))[0] == 400


async def test_head_has_no_body(stack, serve):
    _, addresses = await serve(listen="")

    def work() -> None:
        with Client(addresses.socket) as client:
            reply = client.request("HEAD", "/v1/-/kinds")
            assert (reply.status, reply.body) == (200, b"")
            assert int(reply.headers["content-length"]) > 1000
            reply = client.request("HEAD", "/v1/-/export")
            assert (reply.status, reply.body) == (200, b"")
            assert client.request("GET", "/health/live").status == 200

    await in_thread(work)


async def test_every_answer_forbids_caching_and_sniffing(stack):
    for path in ("/health/live", "/v1/-/kinds", "/nothing"):
        answer = await stack.call("GET", path)
        assert (answer.header("cache-control"), answer.header("x-content-type-options")) == ("no-store", "nosniff")


async def test_a_bug_is_reported_and_hidden(stack):
    stack.store.database.read = None  # what no caller can do: a broken store object
    answer = await stack.call("GET", "/v1/default/aliases/a")
    problem = orjson.loads(answer.body)
    ((error, trace),) = stack.bugs
    assert isinstance(error, TypeError)
    assert (answer.status, problem["code"], problem["trace_id"]) == (500, "internal", trace)
    assert "NoneType" not in answer.body.decode()
    stack.bugs.clear()


# --- streams --------------------------------------------------------------------------------------------------------


async def test_an_export_streams(stack, serve):
    _, addresses = await serve(listen="")
    documents = [{"kind": "alias", "name": f"n{number:04}", "spec": {"command": "x" * 100}} for number in range(1500)]
    await stack.call("POST", "/v1/-/apply", json=documents)

    def work() -> None:
        with Client(addresses.socket) as client:
            names = [orjson.loads(line)["name"] for line in client.stream("GET", "/v1/-/export")]
            assert names == [each["name"] for each in documents]
            assert len(client.request("GET", "/v1/-/export").lines()) == 1500
            for _ in client.stream("GET", "/v1/-/export"):
                break  # left early: the next request takes a new connection
            assert client.request("GET", "/health/live").status == 200
            with pytest.raises(NotFound):
                next(client.stream("GET", "/v1/-/nothing"))

    await in_thread(work)


async def test_a_long_poll_over_the_wire_wakes(stack, serve, monkeypatch):
    monkeypatch.setattr("universal_registry.api.handlers_changes._NET_SECONDS", 60)  # the wake-up alone must do it
    _, addresses = await serve(listen="")

    def poll() -> list[bytes]:
        with Client(addresses.socket) as client:
            return client.request("GET", "/v1/changes", query={"from": "now", "wait": 60}).lines()

    begun = stack.polls()
    waiter = asyncio.gather(in_thread(poll))
    await begun.wait()
    await stack.call("PUT", "/v1/default/aliases/a", json={"spec": {"command": "x"}})
    async with asyncio.timeout(10):
        ((lines,),) = [await waiter]
    assert orjson.loads(lines[0])["name"] == "a"


# --- starting and stopping ------------------------------------------------------------------------------------------


async def test_a_taken_port_is_named(stack, serve, tmp_path):
    _, addresses = await serve()
    with pytest.raises(Conflict, match=addresses.tcp):
        await serve(listen=addresses.tcp, socket_path=tmp_path / "other.sock")
    assert not (tmp_path / "other.sock").exists()


async def test_a_socket_that_answers_is_left_and_a_dead_one_is_replaced(stack, serve, tmp_path):
    path = tmp_path / "run" / "ureg.sock"
    await serve(listen="")
    with pytest.raises(Conflict, match="another daemon answers"):
        await serve(listen="")
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(dead))
    await serve(listen="", socket_path=dead)
    file = tmp_path / "file.sock"
    file.write_text("precious")
    with pytest.raises(Conflict, match="no socket"):
        await serve(listen="", socket_path=file)
    assert file.read_text() == "precious"
    assert path.exists()


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", ":", "127.0.0.1:x"])
async def test_what_is_no_address_is_a_usage_error(stack, serve, listen):
    with pytest.raises(UsageError):
        await serve(listen=listen)


def test_a_long_socket_path(tmp_path):
    long = tmp_path / ("d" * 120) / "ureg.sock"
    assert short_path(tmp_path / "s", tmp_path) == tmp_path / "s"
    short = short_path(long, tmp_path)
    assert short.parent == tmp_path
    assert short == short_path(long, tmp_path) != short_path(long.with_name("b"), tmp_path)
    with pytest.raises(UsageError):
        short_path(long, long.parent)


async def test_stop_ends_polls_removes_the_socket_and_refuses_connections(stack, serve):
    server, addresses = await serve()

    def poll() -> list[bytes]:
        with Client(addresses.socket) as client:
            return client.request("GET", "/v1/changes?wait=60").lines()

    begun = stack.polls()
    waiter = asyncio.gather(in_thread(poll))
    await begun.wait()
    async with asyncio.timeout(10):
        await server.stop(5)
        ((lines,),) = [await waiter]
    assert len(lines) == 1
    assert not Path(addresses.socket).exists()  # noqa: ASYNC240 - a test may look

    def refused() -> None:
        for address in (addresses.socket, addresses.tcp):
            with Client(address) as client, pytest.raises(Unreachable):
                client.request("GET", "/health/live")

    await in_thread(refused)


async def test_find_daemon(stack, serve, tmp_path):
    places = Places(tmp_path)
    server, addresses = await serve()
    assert await in_thread(lambda: find_daemon(places)) is None
    places.address.write_text(addresses.lines())
    assert await in_thread(lambda: find_daemon(places)) == addresses.socket
    places.address.write_text(f"/nowhere.sock\n\nnonsense\n{addresses.tcp}\n")
    assert await in_thread(lambda: find_daemon(places)) == addresses.tcp
    await server.stop(1)
    assert await in_thread(lambda: find_daemon(places)) is None


# --- health ---------------------------------------------------------------------------------------------------------


async def test_health_follows_the_database(stack, tmp_path):
    answer = await stack.call("GET", "/health/db", peer=Peer(kind=PeerKind.UNIX))
    assert (answer.status, orjson.loads(answer.body)["status"]) == (200, "ok")
    (tmp_path / "registry.db").rename(tmp_path / "away.db")
    answer = await stack.call("GET", "/health/db", peer=Peer(kind=PeerKind.UNIX))
    assert (answer.status, orjson.loads(answer.body)["status"]) == (503, "failing")
    assert "registry.db" in orjson.loads(answer.body)["reason"]
    assert (await stack.call("GET", "/health/ready")).status == 503
    assert (await stack.call("GET", "/health/live")).status == 200
    (tmp_path / "registry.db").write_bytes(b"another file")
    assert (await stack.call("GET", "/health/db")).status == 503
    (tmp_path / "away.db").replace(tmp_path / "registry.db")
    assert (await stack.call("GET", "/health/db")).status == 200


async def test_ready_says_what_is_missing(stack):
    assert (await stack.call("GET", "/health/ready")).status == 200
    stack.unready = "the webhook worker is down"
    answer = await stack.call("GET", "/health/ready")
    assert (answer.status, orjson.loads(answer.body)["reason"]) == (503, "the webhook worker is down")
    assert (await stack.call("GET", "/health/db")).status == 200
