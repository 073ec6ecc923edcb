"""The whole of HTTP, by aiohttp's low-level server: whatever `api/fast.py` does not answer itself.

Nothing else in `api` knows aiohttp; its router, which would normalise paths, is not used. Imported at the first request
that needs it: it is a fifth of what an idle daemon would hold in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from universal_registry.api.dispatch import Api, too_large
from universal_registry.api.http import Peer, Request, Response, request_from
from universal_registry.api.listening import ServerLimits
from universal_registry.api.plain import SERVER
from universal_registry.kernel.errors import Malformed, RegistryError, TimedOut

PeerOf = Callable[[asyncio.BaseTransport | None], Peer]
_ROOM = 64 << 10
"""Bytes that may wait to be sent to a reader who is written to without being waited for."""


def full_front(api: Api, limits: ServerLimits, peer_of: PeerOf) -> web.Server:
    """What makes the protocol of a connection; `peer_of` says who is at its other end."""
    return _HttpServer(_Handler(api, limits, peer_of).handle, api, limits)


class _Handler:
    """Turns what aiohttp read into a Request, and a Response into what aiohttp writes."""

    def __init__(self, api: Api, limits: ServerLimits, peer_of: PeerOf) -> None:
        self._api = api
        self._limits = limits
        self._peer_of = peer_of

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        whole, head = True, None
        try:
            head = request_from(http.method, http.raw_path, _headers(http), b"", self._peer_of(http.transport))
            admitted = self._api.admit(head)
            if head.header("expect").lower() == "100-continue":
                await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                http.writer.output_size = 0  # of the answer, nothing has been sent yet
            body = await self._body(http, admitted.match.route.body_limit)
        except RegistryError as error:
            # The body was not read, so nothing more can be read from this connection.
            whole = not http.body_exists
            response = self._api.problem(error, head or _asked(http, self._peer_of(http.transport)))
        else:
            request = msgspec.structs.replace(head, body=body) if body else head
            response = await self._api.dispatch(request, admitted)
        return await _sent(http, response, keep=whole)

    async def _body(self, http: web.BaseRequest, limit: int) -> bytes:
        if (http.content_length or 0) > limit:
            raise too_large(limit)
        if not http.body_exists:
            return b""
        if http.content.is_eof() and http.content.exception() is None:  # it came with the head
            body = http.content.read_nowait()
            if len(body) > limit:
                raise too_large(limit)
            return body
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body):
                async for piece in http.content.iter_any():
                    size += len(piece)
                    if size > limit:
                        raise too_large(limit)
                    pieces.append(piece)
        except TimeoutError:
            raise TimedOut(f"the body did not arrive within {self._limits.body:g} s") from None
        except (web.RequestPayloadError, ConnectionError):
            raise Malformed("the body broke off") from None
        return b"".join(pieces)


def _asked(http: web.BaseRequest, peer: Peer) -> Request:
    """Of a request that cannot be read as one: the form of the answer that it asks for."""
    return Request(method=http.method, path="/", peer=peer, headers={"accept": http.headers.get("accept", "")})


def _headers(http: web.BaseRequest) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in http.raw_headers]


async def _sent(http: web.BaseRequest, response: Response, *, keep: bool) -> web.StreamResponse:
    if isinstance(response.body, bytes):
        answer = web.Response(status=response.status, headers=(*response.headers, SERVER), body=response.body)
        if not keep:
            answer.force_close()
        return answer
    stream = web.StreamResponse(status=response.status, headers=(*response.headers, SERVER))
    if http.version >= HttpVersion11:
        stream.enable_chunked_encoding()
    else:
        stream.force_close()  # HTTP/1.0 knows the end of a body without a length by nothing else
    await stream.prepare(http)
    if http.method != "HEAD":
        try:
            through = response.through
            async for piece in response.body:
                await stream.write(piece)
                if through is not None and http.transport is not None:
                    through(_Pipe(http.transport, chunked=stream.chunked))
                    through = None
        finally:
            await response.body.aclose()  # at once, when the client has left
    await stream.write_eof()
    return stream


class _Pipe:
    """Pipe: past aiohttp, which has sent the head and puts nothing else in between."""

    def __init__(self, transport: asyncio.Transport, *, chunked: bool) -> None:
        self._transport = transport
        self.form = "chunked" if chunked else "plain"

    @property
    def has_room(self) -> bool:
        return self._transport.get_write_buffer_size() <= _ROOM and not self._transport.is_closing()

    def framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.form == "chunked" else data

    def write(self, data: bytes) -> None:
        self._transport.write(data)


def _unreadable(error: BaseException | None, message: str, limit: int) -> Malformed:
    """What is wrong with bytes that aiohttp cannot read, without what it quotes of them."""
    if isinstance(error, LineTooLong):
        # Of the parser's many lines, only the request's is handed over as a bytearray.
        what = "the request line" if str(error.args[0]).startswith("bytearray") else "a header"
        return Malformed(f"{what} is too long", hint=f"at most {limit} bytes")
    said = " ".join(message.partition("\n\n")[0].split()).rstrip(": ")
    return Malformed(f"not HTTP: {said or 'unreadable'}")


_Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _HttpServer(web.Server):
    """aiohttp's server, whose connections answer garbage with our problem documents."""

    def __init__(self, handler: _Handle, api: Api, limits: ServerLimits) -> None:
        super().__init__(handler)
        self._api = api
        self._limits = limits

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._api, self._limits)


class _Connection(RequestHandler):
    __slots__ = ("_api",)

    def __init__(self, manager: web.Server, api: Api, limits: ServerLimits) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle,  # counts from the connection's start too, so a slow head is cut by it
            max_line_size=limits.line,
            max_field_size=limits.line,
            max_headers=limits.headers,
            auto_decompress=False,
            lingering_time=1.0,
            access_log=None,  # type: ignore[arg-type] # None is how aiohttp turns it off
        )
        self._api = api

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Aiohttp's own errors: bytes that are not HTTP, or a bug on the way out."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client left: nobody to answer, nothing to report
        if status >= 500 and exc is not None:
            response = self._api.problem(exc) if isinstance(exc, RegistryError) else self._api.bug(exc)
        else:
            response = self._api.problem(_unreadable(exc, message or "", self.max_line_size))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; it can only be cut off")
        assert isinstance(response.body, bytes)
        answer = web.Response(status=response.status, headers=(*response.headers, SERVER), body=response.body)
        answer.force_close()
        return answer
