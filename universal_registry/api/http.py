"""What passes between a front and the API, free of any HTTP library.

`api/server.py` makes a Request from a connection, `app.embedded` makes one in process; both get a Response back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec
import orjson

from universal_registry.kernel.errors import Malformed, RegistryError, UsageError

JSON_TYPE = "application/json"
JSON_PATCH_TYPE = "application/json-patch+json"
NDJSON_TYPE = "application/x-ndjson"
PROBLEM_TYPE = "application/problem+json"
TSV_TYPE = "text/tab-separated-values"
NUL_TYPE = "text/nul-separated-values"
TEXT_TYPE = "text/plain"
_QUERY_FIELDS = 200
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class PeerKind(StrEnum):
    """Where a request came in."""

    UNIX = "unix"
    TCP = "tcp"
    INPROC = "inproc"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end. `uid`: the user, as the kernel says it (None when it does not).

    `hosts`: the values that the Host header may have on a TCP listener, in lower case.
    """

    kind: PeerKind
    uid: int | None = None
    hosts: frozenset[str] = frozenset()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `path` is raw: still percent-encoded, without the query. `query` is decoded, in order.

    Header names are in lower case; a repeated header is joined with `, `.
    """

    method: str
    path: str
    peer: Peer
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = _NO_HEADERS
    body: bytes = b""

    def header(self, name: str) -> str:
        """The header's value, empty when it is absent. `name` in lower case."""
        return self.headers.get(name, "")

    def values(self, name: str) -> list[str]:
        """All values of a query parameter, in order."""
        return [value for key, value in self.query if key == name]

    def value(self, name: str, default: str = "") -> str:
        """The value of a query parameter that may stand once. Raises UsageError when it is repeated."""
        if not self.query:
            return default
        found = self.values(name)
        if len(found) > 1:
            raise UsageError(f"query parameter {name!r} is given {len(found)} times", hint="give it once")
        return found[0] if found else default

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in a query parameter. Raises UsageError outside of `low`..`high`."""
        text = self.value(name)
        if not text:
            return default
        if text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high:
            return int(text)
        raise UsageError(f"query parameter {name!r} is {text[:40]!r}", hint=f"a whole number from {low} to {high}")

    def flag(self, name: str) -> bool:
        """A yes or no in a query parameter; absent is no. Raises UsageError for anything else."""
        if not self.query:
            return False
        text = self.value(name, "false").lower()
        if text in ("", "1", "true", "yes"):
            return True
        if text in ("0", "false", "no"):
            return False
        raise UsageError(f"query parameter {name!r} is {text[:40]!r}", hint="true or false")

    def content_type(self) -> str:
        """The media type of the body without its parameters, in lower case; empty when none is stated."""
        if self.headers.get("content-type") == JSON_TYPE:
            return JSON_TYPE  # as nearly all say
        return self.header("content-type").split(";")[0].strip().lower()

    def accepts(self, media_type: str) -> bool:
        """Whether the Accept header names this media type itself (`*/*` does not count)."""
        said = self.headers.get("accept")
        if not said:
            return False
        return any(each.split(";")[0].strip().lower() == media_type for each in said.split(","))


class Pipe(Protocol):
    """What leads to the reader of an answer that is sent as it comes, for what need not wait until its next piece."""

    form: str
    """Names what `framed` does: the same for all of that name."""

    @property
    def has_room(self) -> bool:
        """Whether the reader has taken most of what was written, and is there."""
        ...

    def framed(self, data: bytes) -> bytes:
        """As `write` wants it."""
        ...

    def write(self, data: bytes) -> None:
        """Send it behind what was sent."""
        ...


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. A body that is a generator is sent as it comes, without a length. `through`: tells such a body
    of its pipe when its first piece was sent, if the front has one."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | AsyncGenerator[bytes, None] = b""
    through: Callable[[Pipe], None] | None = None

    def header(self, name: str) -> str:
        """The first header of that name (any case), empty when there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as RFC 9457 has it. `code` is stable; `detail` says what went wrong, `hint` what to do.

    `data` holds machine-readable details. No member ever holds a secret or a traceback.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    trace_id: str
    hint: str | None = None
    data: dict[str, Any] = {}


def problem_of(error: RegistryError, trace_id: str) -> Problem:
    """The problem that tells a client of this error."""
    return Problem(
        type=f"urn:universal-registry:problem:{error.code}",
        title=error.code.replace("-", " ").capitalize(),
        status=error.status,
        detail=error.message,
        code=error.code,
        retryable=error.retryable,
        trace_id=trace_id,
        hint=error.hint,
        data=error.data,
    )


def problem_response(error: RegistryError, trace_id: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """The answer that carries an error."""
    # default=str: what an error was given as a detail must never break the telling of it.
    body = orjson.dumps(msgspec.to_builtins(problem_of(error, trace_id), enc_hook=str), default=str)
    return Response(status=error.status, headers=(("content-type", PROBLEM_TYPE), *headers), body=body)


def json_response(value: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """An answer of one JSON value; Structs, enums and times are encoded as msgspec does."""
    return Response(status=status, headers=(("content-type", JSON_TYPE), *headers), body=msgspec.json.encode(value))


def split_target(target: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A request target as (raw path, decoded query). Raises Malformed for a bad query, UsageError for a long one."""
    path, _, query = target.partition("?")
    path = _origin_form(path)
    if not query:
        return path, ()
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_QUERY_FIELDS
        )
    except UnicodeDecodeError:
        raise Malformed("the query is not UTF-8 once decoded", hint="percent-encode the UTF-8 bytes") from None
    except ValueError:
        raise UsageError(f"the query has more than {_QUERY_FIELDS} parameters") from None
    for name, value in pairs:
        if "\0" in name or "\0" in value:
            raise Malformed(f"query parameter {name[:40]!r} holds a NUL")
    return path, tuple(pairs)


def _origin_form(path: str) -> str:
    """`http://host/path`, as sent to proxies, means the same as `/path`."""
    if path.startswith("/"):
        return path
    scheme, separator, rest = path.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    raise Malformed(f"the request target {path[:60]!r} is not a path", hint="it begins with /")


def check_headers(pairs: list[tuple[str, str]]) -> Mapping[str, str]:
    """Headers as a mapping: names in lower case, repeats joined. Raises Malformed for a second
    Host, Authorization, Content-Length or Content-Type."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        if key not in found:
            found[key] = value
        elif key in ("host", "authorization", "content-length", "content-type"):
            raise Malformed(f"header {name} is given twice", hint="send it once")
        else:
            found[key] = f"{found[key]}, {value}"
    return found


def request_from(method: str, target: str, headers: list[tuple[str, str]], body: bytes, peer: Peer) -> Request:
    """A request from what HTTP says of it. Raises Malformed or UsageError for what cannot be read."""
    path, query = split_target(target)
    return Request(method=method, path=path, query=query, headers=check_headers(headers), body=body, peer=peer)


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def packed(response: Response) -> bytes:
    """An answer in one piece, to be given again by `unpacked`."""
    assert isinstance(response.body, bytes)
    return msgspec.msgpack.encode(_Packed(response.status, response.headers, response.body))


def unpacked(data: bytes) -> Response:
    """An answer that was given before, and says so."""
    kept = msgspec.msgpack.decode(data, type=_Packed)
    return Response(status=kept.status, headers=(*kept.headers, ("idempotency-replayed", "true")), body=kept.body)


async def whole_body(response: Response) -> bytes:
    """The body of an answer in one piece."""
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([piece async for piece in response.body])
