"""The raw HTTP client against servers that answer byte by byte what a test says."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from universal_registry.api.http import problem_response
from universal_registry.client.errors import error_from
from universal_registry.client.http import Client, Reply, encode_json, encode_query, quote, record_path
from universal_registry.client.wire import split_address
from universal_registry.kernel import errors as tree
from universal_registry.kernel.errors import (
    CursorMismatch,
    Forbidden,
    Invalid,
    Malformed,
    PartlyDelivered,
    RegistryError,
    TimedOut,
    Unreachable,
    UsageError,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def classes(base: type[RegistryError] = RegistryError) -> Iterator[type[RegistryError]]:
    yield base
    for each in base.__subclasses__():
        yield from classes(each)


@contextmanager
def server(*connections: list[bytes | None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server; each connection answers its requests with these bytes (None: silence until the client leaves)."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for answers in connections:
                connection, _ = listener.accept()
                with connection:
                    for answer in answers:
                        heard.append(_request(connection))
                        if answer is None:
                            connection.recv(1)
                            break
                        connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heard
        thread.join(10)
        assert not thread.is_alive()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def test_what_is_sent():
    with server([OK]) as (address, heard), Client(address, "ur_x") as client:
        client.request(
            "PUT", record_path("n", "aliases", "a b"), query={"strict": True, "m": None, "l": ["1", "2"]}, json={"é": 1}
        )
    head, _, body = heard[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "PUT /v1/n/aliases/a%20b?strict=true&l=1&l=2 HTTP/1.1"
    assert set(lines[1:]) == {
        f"host: {address}", "content-length: 8", "authorization: Bearer ur_x", "content-type: application/json",
    }  # fmt: skip
    assert body.decode() == '{"é":1}'


def test_the_connection_is_kept():
    with server([OK, OK, b"HTTP/1.1 204 No\r\n\r\n"], [OK]) as (address, heard), Client(address) as client:
        assert client.request("GET", "/1").body == b"ok"
        assert client.request("GET", "/2").body == b"ok"
        assert client.request("GET", "/3").body == b""
        assert client._kept is not None
        assert client._kept.sock.recv(1, socket.MSG_PEEK) == b""  # until the server has closed the idle connection
        assert client.request("GET", "/4").body == b"ok"
    assert [each.split()[1] for each in heard] == [b"/1", b"/2", b"/3", b"/4"]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nt: 1\r\n\r\n", b"abcd"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\na: b\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.0 200\ncontent-length: 2\n\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 0\r\nconnection: close\r\n\r\n", b""),
    ],
)
def test_answers_in_every_form(answer, body):
    with server([answer]) as (address, _), Client(address) as client:
        assert client.request("GET", "/").body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"SSH-2.0-server\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 0 + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(300)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\ncontent-type: text/html\r\n\r\nno",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\ncontent-type: application/problem+json\r\n\r\n[]",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 1\r\ncontent-type: application/problem+json\r\n\r\n\xff",
    ],
)
def test_whatever_a_stranger_answers_is_unreachable(answer):
    with server([answer]) as (address, _), Client(address) as client, pytest.raises(Unreachable):
        client.request("GET", "/")


def test_silence_times_out():
    with server([None]) as (address, _), Client(address, timeout=0.1) as client, pytest.raises(TimedOut):
        client.request("GET", "/")


def test_a_write_whose_connection_breaks_says_what_is_not_known():
    doubt = pytest.raises(Unreachable, match="may or may not have been done")
    with server([b""]) as (address, _), Client(address) as client, doubt:
        client.request("PUT", "/", json={})


@pytest.mark.parametrize(("method", "doubted"), [("PUT", True), ("GET", False)])
def test_of_a_write_that_nobody_answers_in_time_it_is_not_known_whether_it_was_done(method, doubted):
    with server([None]) as (address, _), Client(address, timeout=0.1) as client, pytest.raises(TimedOut) as caught:
        client.request(method, "/")
    assert ("may or may not have been done" in str(caught.value)) is doubted


def test_nobody_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for address in (f"127.0.0.1:{port}", str(tmp_path / "none.sock"), "no-such-host.invalid:1"):
        with Client(address, timeout=5) as client, pytest.raises(Unreachable) as caught:
            client.request("GET", "/")
        assert caught.value.exit_code == 7
    with Client("nonsense") as client, pytest.raises(UsageError):
        client.request("GET", "/")


def test_nothing_can_be_smuggled_into_a_head():
    client = Client("127.0.0.1:1", token="a\r\nx: y")
    with pytest.raises(UsageError):
        client.request("GET", "/")
    with pytest.raises(UsageError):
        Client("127.0.0.1:1").request("GET", "/", headers={"a": "b\r\nc: d"})
    with pytest.raises(UsageError):
        Client("127.0.0.1:1").request("GET", "/ä")


def test_lines_come_as_they_are_sent():
    with (
        server([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\nb\r\n2\r\n\nc\r\n0\r\n\r\n"]) as (
            address,
            _,
        ),
        Client(address) as client,
    ):
        assert list(client.stream("GET", "/")) == [b"a", b"b", b"c"]
    assert Reply(200, {}, b"").lines() == []
    assert Reply(200, {}, b"a\n\nb").lines() == [b"a", b"", b"b"]
    with pytest.raises(Unreachable):
        Reply(200, {}, b"<html>").json()


# --- errors survive the wire ----------------------------------------------------------------------------------------


def test_every_error_comes_back_as_itself():
    codes = [each.code for each in classes()]
    assert len(codes) == len(set(codes)) > 20
    for each in classes():
        sent = each("what went wrong", hint="what to do", path="spec.port", numbers=[1])
        response = problem_response(sent, "t" * 32)
        back = error_from(response.status, response.header("content-type"), response.body)
        assert type(back) is each
        assert (back.message, back.hint) == (sent.message, sent.hint)
        assert back.data == {"path": "spec.port", "numbers": [1], "trace_id": "t" * 32}


def test_details_that_are_no_json_do_not_break_the_telling():
    response = problem_response(CursorMismatch("no", cursor=object(), path={1, 2}), "t")
    assert response.status == 409
    assert b"object object" in response.body


def test_an_unknown_code_is_still_an_error():
    body = b'{"detail":"from the future","code":"brand-new","status":418,"data":[1],"hint":3}'
    back = error_from(418, "application/problem+json; charset=utf-8", body)
    assert (type(back), back.message, back.hint, back.data) == (RegistryError, "from the future", None, {})


def test_a_partial_success_is_raised_too():
    from universal_registry.client.http import reply_or_raise

    response = problem_response(PartlyDelivered("2 of 3", targets=["a"]), "t")
    with pytest.raises(PartlyDelivered):
        reply_or_raise(200, {"content-type": response.header("content-type")}, response.body)


# --- texts ----------------------------------------------------------------------------------------------------------


def test_quote_and_paths():
    assert quote("a/b %é~-._") == "a%2Fb%20%25%C3%A9~-._"
    assert record_path("default", "aliases", "..") == "/v1/default/aliases/-?name=.."
    assert record_path("default", "aliases", "-") == "/v1/default/aliases/-?name=-"
    assert record_path("default", "aliases", "...") == "/v1/default/aliases/..."
    with pytest.raises(Invalid):
        quote("\udcff")
    with pytest.raises(UsageError, match="None is not text") as caught:
        record_path("default", "alias", None)
    assert caught.value.hint
    assert encode_query([("a", 1), ("b", "x&y"), ("c", False), ("d", [])]) == "a=1&b=x%26y&c=false"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}, "\udcff", {1, 2}])
def test_what_json_cannot_carry(value):
    with pytest.raises(Malformed):
        encode_json(value)


def test_addresses():
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("localhost:0") == ("localhost", 0)
    for bad in ("", ":1", "a", "a:", "a:-1", "a:65536", "a:١"):
        with pytest.raises(UsageError):
            split_address(bad)


def test_a_socket_that_is_closed_to_us_says_so(monkeypatch):
    from universal_registry.client import wire

    class Closed:
        def __init__(self, *_: object) -> None: ...
        def settimeout(self, _: float) -> None: ...
        def connect(self, _: str) -> None:
            raise PermissionError

        def close(self) -> None: ...

    monkeypatch.setattr(socket, "socket", Closed)
    with pytest.raises(Forbidden):
        wire.connect("/somewhere.sock", 1)


def test_the_import_is_light():
    code = "import sys; import universal_registry.client.http; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("asyncio", "http", "email", "ssl", "urllib", "orjson", "msgspec", "dataclasses", "json", "socket"):
        assert heavy not in loaded
    assert tree.RegistryError.code == "internal"


@pytest.mark.parametrize(("method", "gives_up"), [("GET", True), ("HEAD", True), ("PUT", False)])
def test_whoever_only_asks_is_told_sooner_that_nobody_answers(method, gives_up):
    """The far side is silent for longer than a read waits, and answers before a write gives up."""
    answered = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                _request(connection)
                answered.wait(10)
                connection.sendall(OK)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with Client(address, timeout=0.05, write_timeout=10) as client:
            if gives_up:
                with pytest.raises(TimedOut, match="the daemon is busy or stopped"):
                    client.request(method, "/")
                answered.set()
            else:
                threading.Timer(0.2, answered.set).start()
                assert client.request(method, "/").body == b"ok"
        thread.join(10)
