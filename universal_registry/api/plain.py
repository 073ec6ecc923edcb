"""Plain requests: the few shapes of HTTP/1.1 that can be read at a glance; and answers as bytes. Pure.

What is not exactly of these shapes is not read here at all: aiohttp's parser judges it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from universal_registry.api.http import Response

# Without it, aiohttp tells everyone its version and that of Python.
SERVER = ("server", "universal-registry")
REQUEST_LINE = re.compile(rb"(GET|PUT|POST|PATCH|DELETE) (/(?!/)[A-Za-z0-9/._~%!$&'()*+,;=:@?-]*) HTTP/1\.1")
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]*): ?((?:[!-~](?:[ -~]*[!-~])?)?)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,8}")
_FRAMING = ("content-encoding", "expect", "te", "trailer", "transfer-encoding")
_HOP_BY_HOP = ("http2-settings", "keep-alive", "proxy-connection", "upgrade")
_NOT_PLAIN = frozenset((*_FRAMING, *_HOP_BY_HOP))
_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n" for each in HTTPStatus}
_NO_BODY = (204, 304)


class Fields(NamedTuple):
    """The headers of a plain request as a Request has them, and how long its body is."""

    headers: Mapping[str, str]
    length: int


def fields_of(block: bytes, most: int) -> Fields | None:
    """The header lines between the request line and the empty line; None when they are more than `most`, or not plain:
    a name twice, a folded line, a byte that is not printable ASCII, anything about how the message is framed or the
    connection goes on but a Content-Length."""
    if not block.isascii():
        return None
    lines = block.decode("ascii").split("\r\n") if block else []
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name = field[1].lower()
        if name in headers or name in _NOT_PLAIN:
            return None
        headers[name] = field[2]
    length = headers.get("content-length", "0")
    goes_on = headers.get("connection", "keep-alive").lower() == "keep-alive"
    if len(headers) > most or not goes_on or not _LENGTH.fullmatch(length):
        return None
    return Fields(headers, int(length))


def rendered(response: Response, date: str) -> bytes:
    """The answer to a plain request. Raises TypeError for one that streams, ValueError for headers that break lines."""
    body = response.body
    if not isinstance(body, bytes):
        raise TypeError("the answer to a plain request streams")
    fields = "".join([f"{name}: {value}\r\n" for name, value in (*response.headers, SERVER)])
    if fields.count("\n") + fields.count("\r") != 2 * (len(response.headers) + 1):
        raise ValueError("a header of the answer holds a line end")
    if response.status in _NO_BODY:
        return f"{_STATUS_LINES[response.status]}{fields}Date: {date}\r\n\r\n".encode()
    head = f"{_STATUS_LINES[response.status]}{fields}Content-Length: {len(body)}\r\nDate: {date}\r\n\r\n"
    return head.encode() + body
