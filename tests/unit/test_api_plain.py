"""What is a plain request, and what an answer looks like."""

from __future__ import annotations

import pytest

from universal_registry.api.http import Response
from universal_registry.api.plain import REQUEST_LINE, fields_of, rendered

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.mark.parametrize(
    ("block", "headers", "length"),
    [
        (b"", {}, 0),
        (b"Host: a:1", {"host": "a:1"}, 0),
        (b"Host:a\r\nX: a  b", {"host": "a", "x": "a  b"}, 0),
        (b"X:", {"x": ""}, 0),
        (b"X: ", {"x": ""}, 0),
        (b"Content-Length: 17", {"content-length": "17"}, 17),
        (b"Connection: keep-Alive", {"connection": "keep-Alive"}, 0),
    ],
)
def test_plain_headers(block, headers, length):
    assert fields_of(block, 100) == (headers, length)


@pytest.mark.parametrize(
    "block",
    [
        b"no colon",
        b": x",
        b"x : y",
        b"x: y ",
        b"x:  y",
        b"x:\ty",
        b"x: a\tb",
        b"x: a\0b",
        b"x: a\nb: c",
        b"x: a\rb: c",
        b"x: a\r\n b",
        b"x: \xe4",
        b"x_y: 1",
        b"a: 1\r\nA: 2",
        b"Content-Length: 1\r\ncontent-length: 1",
        b"Content-Length: +1",
        b"Content-Length: 01",
        b"Content-Length: -1",
        b"Content-Length: ",
        b"Content-Length: 1,1",
        b"Content-Length: 9999999999",
        b"Connection: close",
        b"Connection: keep-alive, x-forwarded-for",
        b"Transfer-Encoding: identity",
        b"TE: trailers",
        b"Trailer: x",
        b"Expect: 100-continue",
        b"Upgrade: h2c",
        b"Content-Encoding: identity",
    ],
)
def test_other_headers_are_not_read(block):
    assert fields_of(block, 100) is None
    assert fields_of(b"host: a\r\n" + block, 100) is None


def test_headers_are_counted():
    block = b"\r\n".join(b"x%d: y" % at for at in range(10))
    assert fields_of(block, 10) is not None
    assert fields_of(block, 9) is None


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET /v1/a%2Fb/@c~d?x=1&y=*,!;'()$+-_.:= HTTP/1.1", True),
        (b"DELETE /a HTTP/1.1", True),
        (b"HEAD /a HTTP/1.1", False),
        (b"get /a HTTP/1.1", False),
        (b"GET /a HTTP/1.0", False),
        (b"GET /a http/1.1", False),
        (b"GET /a  HTTP/1.1", False),
        (b"GET /a HTTP/1.1 ", False),
        (b"\r\nGET /a HTTP/1.1", False),
        (b"GET //a HTTP/1.1", False),
        (b"GET a HTTP/1.1", False),
        (b"GET http://a/b HTTP/1.1", False),
        (b"GET /a#b HTTP/1.1", False),
        (b"GET /a\\b HTTP/1.1", False),
        (b"GET /a\xc3\xa4 HTTP/1.1", False),
        (b"GET /a\0 HTTP/1.1", False),
        (b"GET /a\tb HTTP/1.1", False),
        (b'GET /a"b HTTP/1.1', False),
    ],
)
def test_plain_request_lines(line, plain):
    assert bool(REQUEST_LINE.fullmatch(line)) is plain


def test_an_answer_is_one_piece():
    answer = rendered(Response(status=201, headers=(("etag", '"1"'),), body=b"{}"), DATE)
    head = f'HTTP/1.1 201 Created\r\netag: "1"\r\nserver: universal-registry\r\nContent-Length: 2\r\nDate: {DATE}\r\n'
    assert answer == head.encode() + b"\r\n{}"


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_never_has_a_body_says_no_length(status):
    assert b"Content-Length" not in rendered(Response(status=status), DATE)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "\r\n\r\n<html>"])
def test_a_header_cannot_hold_a_line_end(value):
    with pytest.raises(ValueError, match="line end"):
        rendered(Response(headers=(("x", value),)), DATE)


def test_a_stream_is_no_plain_answer():
    async def pieces():
        yield b""

    with pytest.raises(TypeError):
        rendered(Response(body=pieces()), DATE)
