"""The one HTTP client: synchronous, over the daemon's Unix socket or TCP, of sockets alone.

The standard library's `http.client` would cost every `ureg get` about 20 ms of imports, so HTTP/1.1 is read here
(`wire.py`). It trusts the daemon not to be hostile, and a stranger only not to be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from universal_registry.client.errors import PROBLEM_TYPE, error_from
from universal_registry.client.wire import TLS, Connection, connect
from universal_registry.kernel.errors import Forbidden, Invalid, Malformed, TimedOut, Unreachable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

Query = Mapping[str, Any] | Iterable[tuple[str, Any]]
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


_READS = ("GET", "HEAD")


class HasAddress(Protocol):
    """What `find_daemon` needs of the places below a home (`kernel.settings.Places`)."""

    @property
    def address(self) -> Path: ...


class Reply:
    """A whole answer. `headers` have names in lower case."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as a JSON value. Raises Unreachable when it is none: then it is not the registry that answered."""
        import json

        try:
            return json.loads(self.body)
        except ValueError:
            raise Unreachable("the answer is not JSON", hint="is another program listening there?") from None

    def lines(self) -> list[bytes]:
        """The lines of an NDJSON or TSV body, without their ends."""
        return self.body.split(b"\n")[:-1] if self.body.endswith(b"\n") else self.body.split(b"\n") if self.body else []


class Caller(Protocol):
    """Whoever can pass a request to the API: this client, or the API in the same process."""

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer. `path` is percent-encoded (see `record_path`) and may hold a query; `json` is the body to encode.

        Raises the RegistryError that the API answered with; Unreachable and TimedOut when it did not answer.
        """
        ...

    def close(self) -> None: ...


# --- writing requests -----------------------------------------------------------------------------------------------


def quote(text: str) -> str:
    """Percent-encoded UTF-8: safe as a segment of a path or a value of a query. Raises Invalid if it is no UTF-8,
    UsageError if it is no text."""
    if not isinstance(text, str):
        raise UsageError(f"{text!r:.80} is not text", hint="a kind, a name, a namespace or an id is a str")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{ascii(text)[:80]} is not UTF-8") from None
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in raw)


def record_path(namespace: str, plural: str, name: str) -> str:
    """The path of a record. Names that a path cannot carry (`.`, `..`, `-`, the empty one) go into the query."""
    folder = f"/v1/{quote(namespace)}/{quote(plural)}"
    return f"{folder}/-?name={quote(name)}" if name in ("", ".", "..", "-") else f"{folder}/{quote(name)}"


def encode_query(query: Query) -> str:
    """`a=1&b=2`; None is left out, a list repeats its name, a boolean is `true` or `false`."""
    pairs = query.items() if isinstance(query, Mapping) else query
    parts: list[str] = []
    for name, value in pairs:
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is not None:
                text = str(item).lower() if isinstance(item, bool) else str(item)
                parts.append(f"{quote(name)}={quote(text)}")
    return "&".join(parts)


def encode_json(value: Any) -> bytes:
    """The bytes of a JSON value. Raises Malformed for what JSON or UTF-8 cannot carry."""
    import json  # not orjson: its import costs four times the rest of this module

    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.end + 20]
        raise Malformed(f"{text!a} is not UTF-8") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"the value cannot be sent as JSON: {error}") from None


def prepare(
    path: str, query: Query | None, json: Any, body: bytes | None, headers: Mapping[str, str] | None
) -> tuple[str, dict[str, str], bytes]:
    """What a request says, whoever carries it: (target, headers in lower case, body)."""
    encoded = encode_query(query) if query else ""
    target = path + ("&" if "?" in path else "?") + encoded if encoded else path
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if json is not None:
        sent.setdefault("content-type", "application/json")
        body = encode_json(json)
    return target, sent, body or b""


def reply_or_raise(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """The reply, unless it tells of an error: then that error is raised. A health check's 503 is a reply."""
    content_type = headers.get("content-type", "")
    if status == 503 and body.startswith(b'{"status":'):
        return Reply(status, headers, body)
    if status >= 400 or content_type.startswith(PROBLEM_TYPE):
        raise error_from(status, content_type, body)
    return Reply(status, headers, body)


# --- finding the daemon ---------------------------------------------------------------------------------------------


def find_daemon(places: HasAddress, *, timeout: float = 2.0) -> str | None:
    """The address at which a daemon of this home accepts connections, its socket before its TCP port; None: no daemon.

    `run/address` may outlive a killed daemon, so each address is tried by connecting.
    """
    for address in daemon_addresses(places):
        try:
            connect(address, timeout).close()
        except (Unreachable, Forbidden, TimedOut, UsageError):
            continue
        return address
    return None


def daemon_addresses(places: HasAddress) -> tuple[str, ...]:
    """The addresses that a daemon of this home has written down: its socket, and its TCP address if it has one."""
    try:
        text = places.address.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(line.strip() for line in text.splitlines() if line.strip())


# --- the client ------------------------------------------------------------------------------------------------------


class Client:
    """A Caller over a socket. Keeps one connection open between requests; for one thread.

    `address`: the absolute path of a Unix socket, `HOST:PORT`, or `https://HOST:PORT` (`ca_file`: its authorities, PEM,
    instead of the system's). `timeout`: seconds without a byte from the daemon;
    `write_timeout`: the same for requests that change something, where that is more.
    A request is sent once: when its connection breaks, or no answer comes in time, the error says that it may or may
    not have been done.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        timeout: float = 30.0,
        write_timeout: float = 0.0,
        *,
        ca_file: str | None = None,
    ) -> None:
        self.address = address
        self._ca_file = ca_file
        self._token = token
        self._timeout = timeout
        self._write_timeout = max(timeout, write_timeout)
        self._kept: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connection; the client can be used again."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """See Caller.request."""
        with _Exchange(self, method, prepare(path, query, json, body, headers)) as exchange:
            return reply_or_raise(exchange.status, exchange.headers, exchange.read())

    def stream(
        self, method: str, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[bytes]:
        """The lines of an answer, as they come. Raises like `request`, at the first line."""
        with _Exchange(self, method, prepare(path, query, None, None, headers)) as exchange:
            if exchange.status >= 400:
                reply_or_raise(exchange.status, exchange.headers, exchange.read())
            rest = b""
            for piece in exchange.pieces():
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines
            if rest:
                yield rest

    def take(self, method: str) -> Connection:
        """A connection to send on: the kept one while it lives, else a new one."""
        seconds = self._timeout if method in _READS else self._write_timeout
        kept, self._kept = self._kept, None
        if kept is not None:
            if kept.still_open(seconds):
                return kept
            kept.close()
        return Connection(self.address, seconds, self._ca_file)

    def give_back(self, connection: Connection) -> None:
        """Keep the connection for the next request, or close it."""
        if connection.reusable and self._kept is None:
            self._kept = connection
        else:
            connection.close()

    def head_bytes(self, method: str, target: str, headers: Mapping[str, str], length: int) -> bytes:
        """The request line and headers."""
        host = "localhost" if self.address.startswith("/") else self.address.removeprefix(TLS)
        lines = [f"{method} {target} HTTP/1.1", f"host: {host}", f"content-length: {length}"]
        if self._token is not None:
            lines.append(f"authorization: Bearer {self._token}")
        lines.extend(f"{name}: {value}" for name, value in headers.items())
        if any(not line.isprintable() or not line.isascii() for line in lines):
            raise UsageError("a header, the token or the path holds a character that HTTP cannot carry")
        return "\r\n".join((*lines, "", "")).encode("ascii")


class _Exchange:
    """One request and its answer. Leaving it early gives the connection up; every failure has one of our errors."""

    def __init__(self, client: Client, method: str, prepared: tuple[str, Mapping[str, str], bytes]) -> None:
        self._client = client
        self._method = method
        self._target, self._sent, self._body = prepared
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        head = self._client.head_bytes(self._method, self._target, self._sent, len(self._body))
        self._connection = self._client.take(self._method)
        try:
            self._connection.send(head + self._body)
            self.status, self.headers = self._connection.head()
        except (OSError, ValueError, EOFError) as error:
            self._connection.close()
            raise self._unreachable(error) from None
        except BaseException:  # Ctrl-C while waiting
            self._connection.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.give_back(self._connection)

    def pieces(self) -> Iterator[bytes]:
        try:
            yield from self._connection.chunks(self._method, self.status, self.headers)
        except (OSError, ValueError, EOFError) as error:
            raise self._unreachable(error) from None

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def _unreachable(self, error: Exception) -> Unreachable | TimedOut:
        where = self._client.address
        doubt = "" if self._method in _READS else "; what was asked may or may not have been done"
        if isinstance(error, TimeoutError):
            hint = "the daemon is busy or stopped: its log says more"
            return TimedOut(f"no answer from {where} in time{doubt}", hint=hint)
        if isinstance(error, ValueError):
            return Unreachable(f"the answer from {where} is not HTTP: {error}", hint="is another program there?")
        return Unreachable(f"{where} broke the connection{doubt}")
